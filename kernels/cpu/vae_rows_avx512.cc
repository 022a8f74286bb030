// The decoder's inner loops for AVX-512 F, BW, DQ and VL.

#include "kernels/cpu/vae_rows.h"

#define LANCET_VAE_ROWS VaeRowsAvx512
#include "kernels/cpu/vae_rows_inl.h"

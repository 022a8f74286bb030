// The decoder's inner loops for AVX2 and FMA.

#include "kernels/cpu/vae_rows.h"

#define LANCET_VAE_ROWS VaeRowsAvx2
#include "kernels/cpu/vae_rows_inl.h"

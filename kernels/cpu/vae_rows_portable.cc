// The decoder's inner loops for any processor.

#include "kernels/cpu/vae_rows.h"

#define LANCET_VAE_ROWS VaeRowsPortable
#include "kernels/cpu/vae_rows_inl.h"

lancet_test(vae_conv_test
  SRCS vae_conv_test.cc vae_testing.h DEPS lancet_kernels_conv lancet_kernels_vae_reference LABELS unit nogrpc threads)
lancet_test(vae_ops_test
  SRCS vae_ops_test.cc vae_testing.h DEPS lancet_kernels_conv lancet_kernels_vae_reference LABELS unit nogrpc threads)

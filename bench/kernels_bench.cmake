lancet_bench(kernels_bench SRCS kernels_bench.cc peak.h peak.cc DEPS lancet_kernels)

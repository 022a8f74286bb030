lancet_library(lancet_bench_collective_group HDRS collective_group.h SRCS collective_group.cc DEPS lancet_collective)
lancet_bench(collective_bench SRCS collective_bench.cc DEPS lancet_bench_collective_group)
lancet_executable(transport_bench
  SRCS transport_bench.cc
  DEPS lancet_bench_collective_group lancet_bench_release_layer absl::flags_parse absl::flags_usage absl::str_format)

# Its yardsticks are loops of x86 instructions.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
  lancet_bench(kernels_bench SRCS kernels_bench.cc peak.h peak.cc DEPS lancet_kernels)
  # As kernels/CMakeLists.txt says of GCC 12 and AVX-512.
  set_source_files_properties(peak.cc PROPERTIES COMPILE_OPTIONS "-Wno-maybe-uninitialized;-Wno-uninitialized")
endif()

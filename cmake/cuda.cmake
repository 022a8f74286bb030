# The CUDA Toolkit and the libraries beside it, for builds with LANCET_CUDA, and lancet_cuda_library().

set(LANCET_CUDA_ARCHITECTURES "80;90a;100f;120f" CACHE STRING
  "GPU targets of own kernels. Family targets (100f, 120f) hold the FP4 conversion that plain ones lack; name one target \
for a quick development build")

# Targets are given as -gencode below: CMake 3.25 does not know family targets.
set(CMAKE_CUDA_ARCHITECTURES OFF)
enable_language(CUDA)
# CMake 3.25 does not know that nvcc has C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
find_package(CUDAToolkit 12.9 REQUIRED)  # the first with family targets
find_library(CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} REQUIRED)
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} REQUIRED)
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)

foreach(library CUDNN NCCL)
  string(TOLOWER ${library} name)
  add_library(lancet_${name} INTERFACE)
  target_include_directories(lancet_${name} SYSTEM INTERFACE ${${library}_INCLUDE_DIR})
  target_link_libraries(lancet_${name} INTERFACE ${${library}_LIBRARY})
endforeach()

set(LANCET_GENCODE "")
foreach(arch ${LANCET_CUDA_ARCHITECTURES})
  list(APPEND LANCET_GENCODE "SHELL:-gencode arch=compute_${arch},code=sm_${arch}")
endforeach()

# lancet_cuda_library(NAME HDRS ... KERNELS x.cu ... SRCS y.cc ... DEPS ...): device code in .cu files, which nvcc builds
# for every target; everything around it in .cc files, which the host compiler builds alone.
function(lancet_cuda_library name)
  cmake_parse_arguments(ARG "" "" "HDRS;KERNELS;SRCS;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_KERNELS} ${ARG_SRCS})
  target_sources(${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR} FILES ${ARG_HDRS})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} CUDA::cudart_static)
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_include_directories(${name} SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_options(${name} PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Wnon-virtual-dtor>"
    "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xcompiler=-Wall,-Wextra,-Wshadow>"
    "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xcudafe --display_error_number>"
    "$<$<COMPILE_LANGUAGE:CUDA>:-lineinfo;--expt-relaxed-constexpr>")
  foreach(flag ${LANCET_GENCODE})
    target_compile_options(${name} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${flag}>")
  endforeach()
  if(LANCET_WERROR)
    target_compile_options(${name} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Werror>"
      "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>")
  endif()
endfunction()

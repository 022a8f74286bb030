# lancet_library(), lancet_executable(), lancet_test(), lancet_bench(): warnings, sanitizers and labels applied once.

add_library(lancet_options INTERFACE)
target_include_directories(lancet_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(lancet_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor)
if(LANCET_WERROR)
  target_compile_options(lancet_options INTERFACE -Werror)
endif()
if(LANCET_SANITIZE STREQUAL "asan")
  set(LANCET_SANITIZE_FLAGS -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
elseif(LANCET_SANITIZE STREQUAL "tsan")
  set(LANCET_SANITIZE_FLAGS -fsanitize=thread -fno-omit-frame-pointer)
elseif(LANCET_SANITIZE STREQUAL "fuzz")
  # Coverage for libFuzzer, which tests/fuzz links.
  set(LANCET_SANITIZE_FLAGS -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
    -fno-omit-frame-pointer)
elseif(LANCET_SANITIZE)
  message(FATAL_ERROR "LANCET_SANITIZE is '${LANCET_SANITIZE}'; expected empty, asan, tsan or fuzz")
endif()
target_compile_options(lancet_options INTERFACE ${LANCET_SANITIZE_FLAGS})
target_link_options(lancet_options INTERFACE ${LANCET_SANITIZE_FLAGS})
# A test's own code is not what is optimised or searched for undefined behaviour: without the checks of every pointer it
# compiles in half the time. Those checks stay in the libraries that it tests.
set(LANCET_TEST_OPTIONS -O1)
if(LANCET_SANITIZE STREQUAL "asan")
  list(APPEND LANCET_TEST_OPTIONS -fno-sanitize=alignment,null,object-size,vptr)
endif()

# Portable programs are run in the source folder, wherever that is, with the libraries that they need beside them.
if(LANCET_PORTABLE)
  target_link_options(lancet_options INTERFACE -static-libstdc++ -static-libgcc)
  set(CMAKE_BUILD_RPATH_USE_ORIGIN ON)
  set(CMAKE_BUILD_RPATH "$ORIGIN/lib")
  set(LANCET_SOURCE_ROOT .)
else()
  set(LANCET_SOURCE_ROOT ${CMAKE_SOURCE_DIR})
endif()

# lancet_library(NAME HDRS ... SRCS ... DEPS ... [PRIVATE_DEPS ...])
# Each header must compile alone. That of x.cc does, because x.cc includes it first (tools/check_includes.py); the others
# form the header set that the target all_verify_interface_header_sets compiles one by one.
function(lancet_library name)
  cmake_parse_arguments(ARG "" "" "HDRS;SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(${name} STATIC ${ARG_SRCS})
    set(scope PUBLIC)
    target_link_libraries(${name} PRIVATE ${ARG_PRIVATE_DEPS})
  else()
    add_library(${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  set(alone "")
  set(proven "")
  foreach(header ${ARG_HDRS})
    string(REGEX REPLACE "\\.h$" ".cc" source ${header})
    if(source IN_LIST ARG_SRCS)
      list(APPEND proven ${header})
    else()
      list(APPEND alone ${header})
    endif()
  endforeach()
  target_sources(${name} ${scope} FILE_SET HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR} FILES ${alone})
  target_sources(${name} ${scope} FILE_SET proven TYPE HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR} FILES ${proven})
  set_target_properties(${name} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON INTERFACE_HEADER_SETS_TO_VERIFY HEADERS)
  target_link_libraries(${name} ${scope} lancet_options ${ARG_DEPS})
endfunction()

# lancet_executable(NAME SRCS ... DEPS ...): a program that users run; lies in bin/.
function(lancet_executable name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE lancet_options ${ARG_DEPS})
endfunction()

# What the thread sanitizer needs built: tests that prove something under it, and tests that are a smoke test there
# (tests/tsan_grpc.supp).
add_custom_target(lancet_nogrpc_tests)
add_custom_target(lancet_grpc_tests)

# lancet_test(NAME SRCS ... DEPS ... [LABELS ...] [TIMEOUT s]): labels default to "unit". A test labelled "nogrpc" runs
# under TSan without suppressions; one labelled "e2e" starts processes and watches the clock, so it runs alone.
# LANCET_TEST_DATA is the folder tests/data.
function(lancet_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SRCS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_compile_definitions(${name} PRIVATE LANCET_TEST_DATA="${LANCET_SOURCE_ROOT}/tests/data"
    LANCET_DEMO_MODEL="${LANCET_SOURCE_ROOT}/models/demo" LANCET_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  target_link_libraries(${name} PRIVATE lancet_options ${ARG_DEPS} GTest::gtest_main GTest::gmock)
  target_compile_options(${name} PRIVATE ${LANCET_TEST_OPTIONS})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
  if(LANCET_PORTABLE)
    set_tests_properties(${name} PROPERTIES WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  endif()
  if("nogrpc" IN_LIST ARG_LABELS)
    add_dependencies(lancet_nogrpc_tests ${name})
  elseif(NOT "e2e" IN_LIST ARG_LABELS)
    add_dependencies(lancet_grpc_tests ${name})
  endif()
  if("e2e" IN_LIST ARG_LABELS)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

# lancet_bench(NAME SRCS ... DEPS ...): a Google Benchmark program; lies in bin/, never run by ctest.
function(lancet_bench name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE lancet_options ${ARG_DEPS} benchmark::benchmark)
endfunction()

# Every third-party package, found in one place. All come from the distribution (scripts/setup.sh names the packages);
# gRPC, protobuf and Abseil are ABI-coupled there, so none of them may be brought in a second time.

find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenSSL REQUIRED)
if(NOT LANCET_FUZZ)
  # Only to bound the team that oneDNN's OpenMP runtime starts. The fuzz targets, built by clang, need neither.
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  find_package(dnnl CONFIG REQUIRED)
endif()
# Module mode and before gRPC: the distributions build protobuf without its CMake package.
find_package(Protobuf REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(PNG REQUIRED)
find_package(JPEG REQUIRED)
find_package(GTest REQUIRED)
find_package(benchmark CONFIG REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(WEBP REQUIRED IMPORTED_TARGET libwebp)
pkg_check_modules(WEBPDEMUX REQUIRED IMPORTED_TARGET libwebpdemux)

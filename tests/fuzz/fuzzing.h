// What the fuzz targets share. A target is a function of bytes that must neither crash, hang nor leak, and
// that checks what holds for any input by Require.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/string_view.h"

// Called by libFuzzer for every input.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace lancet {

// Ends the process, which libFuzzer reports together with the input, if `holds` is false.
inline void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

inline absl::string_view AsText(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace lancet

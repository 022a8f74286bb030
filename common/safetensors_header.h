// The header of a safetensors file, parsed and checked on its own (safetensors.h has the format).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/dtype.h"
#include "common/tensor_view.h"

namespace lancet {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kU8;
  Shape shape;
  uint64_t begin = 0;  // bytes from the start of the data
  uint64_t end = 0;
};

// Entries in the order of their data. `data_bytes` is what the file holds after the header; the entries cover
// it exactly. InvalidArgument messages begin with `path`.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(absl::string_view header,
                                                                     uint64_t data_bytes,
                                                                     absl::string_view path);

}  // namespace lancet

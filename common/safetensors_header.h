// The header of a safetensors file, parsed and checked on its own (safetensors.h has the format).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
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

// What "__metadata__" says.
using SafetensorsMetadata = absl::flat_hash_map<std::string, std::string>;

// Entries in the order of their data. `data_bytes` is what the file holds after the header; the entries cover
// it exactly. InvalidArgument messages begin with `path`. `metadata`, unless null, takes what "__metadata__"
// says.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(absl::string_view header,
                                                                     uint64_t data_bytes,
                                                                     absl::string_view path,
                                                                     SafetensorsMetadata* metadata = nullptr);

}  // namespace lancet

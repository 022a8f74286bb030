// A safetensors file in memory that tests change and write: the opposite of common/safetensors.h, without its
// checks.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/string_view.h"
#include "common/state_dict.h"

namespace lancet {

struct TestTensor {
  std::string dtype;
  Shape shape;
  std::string data;
};

// Sorted by name; written in that order.
using TensorFile = std::map<std::string, TestTensor>;

// A copy of everything in `dict`.
TensorFile CopyTensors(const StateDict& dict);

// The bytes of a well-formed file.
std::string SerializeTensors(const TensorFile& tensors);

// A file of this header and data, well-formed or not.
std::string SafetensorsBytes(absl::string_view header, absl::string_view data);

// Writes bytes to `path`, creating folders; fails the test if it cannot.
void WriteFile(const std::string& path, absl::string_view bytes);

}  // namespace lancet

// A read-only set of named tensors, whatever the file behind it (safetensors or a PyTorch archive).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tensor_view.h"

namespace lancet {

// Thread-safe after creation. Views live as long as the object.
class StateDict {
 public:
  virtual ~StateDict() = default;

  // Sorted.
  virtual const std::vector<std::string>& names() const = 0;
  virtual bool Contains(absl::string_view name) const = 0;
  // NotFound names the tensor and the file.
  virtual absl::StatusOr<TensorView> Get(absl::string_view name) const = 0;
  // For messages.
  virtual const std::string& path() const = 0;
};

// Get, and InvalidArgument naming the tensor if dtype or shape differ.
absl::StatusOr<TensorView> GetChecked(const StateDict& dict, absl::string_view name, DType dtype,
                                      const Shape& shape);

}  // namespace lancet

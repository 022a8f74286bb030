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
  // Says that a tensor has been used, so that its pages need not stay resident. Its view stays valid; reading
  // it again costs time only.
  virtual void Release(absl::string_view /*name*/) const {}
};

// Opens a safetensors file or a PyTorch archive, told apart by their first bytes, and checks all that can be
// checked without knowing what it should hold. InvalidArgument names the file and what is wrong with it.
absl::StatusOr<std::unique_ptr<StateDict>> OpenStateDict(const std::string& path);

// Get, and InvalidArgument naming the tensor if dtype or shape differ.
absl::StatusOr<TensorView> GetChecked(const StateDict& dict, absl::string_view name, DType dtype,
                                      const Shape& shape);

}  // namespace lancet

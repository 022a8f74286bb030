// Reads the pickle inside a PyTorch archive, as far as a flat state dict goes: an (ordered) dict from names
// to tensors. Nothing is executed. The interpreter knows the opcodes of pickle protocol 2 that torch.save
// writes for such a dict and accepts as callables only OrderedDict and the functions that rebuild a tensor,
// each of which it carries out itself; anything else is refused by name. The dict's own state (`_metadata`:
// module versions) is read and dropped.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/dtype.h"
#include "common/tensor_view.h"

namespace lancet {

// A strided view of a storage. Extents and strides are >= 0 and as many; the elements it reaches lie within
// the storage.
struct PickledTensor {
  std::string name;
  std::string storage_key;  // the storage is the archive's member data/<key>
  DType dtype = DType::kF32;
  int64_t storage_elements = 0;
  int64_t offset = 0;  // in elements, as strides are
  Shape shape;
  Shape strides;
};

// In the order of the dict. InvalidArgument begins with `source`, and says at which byte of the pickle.
absl::StatusOr<std::vector<PickledTensor>> ParsePickledStateDict(absl::string_view pickle,
                                                                 absl::string_view source);

}  // namespace lancet

// A PyTorch archive; what does not begin like a zip file is taken as the pickle inside of one. (Checksums
// keep a mutated archive from being read far.)

#include <memory>

#include "absl/strings/match.h"
#include "common/pickle_reader.h"
#include "common/torch_zip.h"
#include "tests/fuzz/fuzzing.h"
#include "tests/fuzz/read_tensors.h"
#include "tests/testing/in_memory_file.h"

namespace lancet {
namespace {

// The last element that a tensor reaches, and one; 0 if it has none. -1 if that overflows.
int64_t Reach(const PickledTensor& tensor) {
  int64_t last = tensor.offset;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    if (tensor.shape[i] == 0) return 0;
    int64_t step = 0;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &step) ||
        __builtin_add_overflow(last, step, &last)) {
      return -1;
    }
  }
  return last + 1;
}

void FuzzPickle(absl::string_view pickle) {
  const auto tensors = ParsePickledStateDict(pickle, "memory");
  if (!tensors.ok()) return;
  for (const PickledTensor& tensor : *tensors) {
    Require(tensor.shape.size() == tensor.strides.size(), "as many strides as extents");
    const int64_t reach = Reach(tensor);
    Require(reach >= 0 && reach <= tensor.storage_elements, "the tensor lies within its storage");
  }
}

void FuzzArchive(absl::string_view bytes) {
  TorchZipOptions options;
  options.max_materialised_bytes = uint64_t{1} << 20;
  const auto file = TorchZipFile::Create(std::make_unique<InMemoryFile>(bytes), options);
  if (file.ok()) ReadTensors(**file);
}

}  // namespace
}  // namespace lancet

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes = lancet::AsText(data, size);
  if (absl::StartsWith(bytes, "PK")) {
    lancet::FuzzArchive(bytes);
  } else {
    lancet::FuzzPickle(bytes);
  }
  return 0;
}

#include "common/state_dict.h"

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "common/quote.h"
#include "common/safetensors.h"
#include "common/status_macros.h"
#include "common/torch_zip.h"

namespace lancet {
namespace {

bool StartsWith(absl::Span<const std::byte> bytes, absl::string_view prefix) {
  return bytes.size() >= prefix.size() && std::memcmp(bytes.data(), prefix.data(), prefix.size()) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateDict>> OpenStateDict(const std::string& path) {
  LANCET_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  if (StartsWith(file->bytes(), "PK")) return TorchZipFile::Create(std::move(file));
  if (StartsWith(file->bytes(), "\x80\x02")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     ": is a PyTorch file of the format before version 1.6; load and save it with a newer "
                     "PyTorch: torch.save(torch.load(old, map_location='cpu'), new)"));
  }
  return SafetensorsFile::Create(std::move(file));
}

absl::StatusOr<TensorView> GetChecked(const StateDict& dict, absl::string_view name, DType dtype,
                                      const Shape& shape) {
  LANCET_ASSIGN_OR_RETURN(const TensorView view, dict.Get(name));
  if (view.dtype != dtype || view.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(dict.path(), ": tensor ", Quote(name), " is ",
                                                   DTypeName(view.dtype), " ", ShapeString(view.shape),
                                                   "; expected ", DTypeName(dtype), " ", ShapeString(shape)));
  }
  return view;
}

}  // namespace lancet

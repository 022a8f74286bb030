#include "common/torch_zip.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/pickle_reader.h"
#include "common/quote.h"
#include "common/status_macros.h"
#include "common/zip_reader.h"

namespace lancet {
namespace {

// The stock autoencoder's pickle has 26 kB.
constexpr uint64_t kMaxPickleBytes = uint64_t{16} << 20;

bool IsRowMajor(const PickledTensor& tensor) {
  int64_t expected = 1;
  for (size_t d = tensor.shape.size(); d-- > 0;) {
    if (tensor.shape[d] != 1 && tensor.strides[d] != expected) return false;
    expected *= tensor.shape[d];
  }
  return true;
}

// Copies a non-empty strided view into row-major order.
void CopyRowMajor(const PickledTensor& tensor, const std::byte* storage, std::byte* out) {
  const size_t size = DTypeSize(tensor.dtype);
  Shape index(tensor.shape.size(), 0);
  int64_t element = tensor.offset;
  for (int64_t left = NumElements(tensor.shape); left > 0; --left) {
    std::memcpy(out, storage + static_cast<size_t>(element) * size, size);
    out += size;
    for (size_t d = index.size(); d-- > 0;) {
      element += tensor.strides[d];
      if (++index[d] < tensor.shape[d]) break;
      element -= tensor.strides[d] * tensor.shape[d];
      index[d] = 0;
    }
  }
}

// Turns the archive into views, and owns what has to be copied.
class Builder {
 public:
  Builder(const ReadOnlyFile& file, const TorchZipOptions& options)
      : path_(file.path()), bytes_(file.bytes()), budget_(options.max_materialised_bytes) {}

  absl::StatusOr<std::vector<PickledTensor>> ReadPickle() {
    LANCET_ASSIGN_OR_RETURN(ZipArchive archive, ZipArchive::Parse(bytes_, path_));
    archive_ = std::make_unique<ZipArchive>(std::move(archive));
    const ZipMember* pickle = nullptr;
    for (const ZipMember& member : archive_->members()) {
      absl::string_view prefix = member.name;
      if (!absl::ConsumeSuffix(&prefix, "/data.pkl") || absl::StrContains(prefix, '/')) continue;
      if (pickle != nullptr) return Error("holds two pickles");
      pickle = &member;
      prefix_ = std::string(prefix);
    }
    if (pickle == nullptr)
      return Error("is a zip archive without <name>/data.pkl; not written by torch.save");
    if (const ZipMember* order = archive_->Find(absl::StrCat(prefix_, "/byteorder")); order != nullptr) {
      LANCET_ASSIGN_OR_RETURN(const auto text, UnpackZipMember(*order, 64, path_));
      if (absl::string_view(reinterpret_cast<const char*>(text.get()), order->size) != "little") {
        return Error("was written on a big-endian machine");
      }
    }
    LANCET_ASSIGN_OR_RETURN(const auto content, UnpackZipMember(*pickle, kMaxPickleBytes, path_));
    return ParsePickledStateDict({reinterpret_cast<const char*>(content.get()), pickle->size}, path_);
  }

  absl::StatusOr<TensorView> View(const PickledTensor& tensor) {
    const size_t size = DTypeSize(tensor.dtype);
    LANCET_ASSIGN_OR_RETURN(const absl::Span<const std::byte> storage, FindStorage(tensor));
    TensorView view{tensor.dtype, tensor.shape, nullptr};
    if (view.num_elements() == 0) return view;
    view.data = storage.data() + static_cast<size_t>(tensor.offset) * size;
    const bool aligned = reinterpret_cast<uintptr_t>(view.data) % size == 0;
    if (IsRowMajor(tensor) && aligned) return view;
    LANCET_ASSIGN_OR_RETURN(std::byte * copy, Allocate(static_cast<uint64_t>(view.num_bytes()), tensor.name));
    CopyRowMajor(tensor, storage.data(), copy);
    view.data = copy;
    return view;
  }

  std::vector<std::unique_ptr<std::byte[]>> TakeOwned() { return std::move(owned_); }

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": ", what));
  }

  absl::Status Spend(uint64_t bytes, absl::string_view name) {
    if (bytes > budget_) {
      return absl::ResourceExhaustedError(absl::StrCat(path_, ": tensor ", Quote(name), " needs ", bytes,
                                                       " bytes of memory; of the limit ", budget_,
                                                       " are left"));
    }
    budget_ -= bytes;
    return absl::OkStatus();
  }

  absl::StatusOr<std::byte*> Allocate(uint64_t bytes, absl::string_view name) {
    LANCET_RETURN_IF_ERROR(Spend(bytes, name));
    std::unique_ptr<std::byte[]> memory(new (std::nothrow) std::byte[bytes]);
    if (memory == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat(path_, ": no memory for the ", bytes, " bytes of tensor ", Quote(name)));
    }
    owned_.push_back(std::move(memory));
    return owned_.back().get();
  }

  // The storage of a tensor, unpacked once however many tensors share it.
  absl::StatusOr<absl::Span<const std::byte>> FindStorage(const PickledTensor& tensor) {
    const ZipMember* member = archive_->Find(absl::StrCat(prefix_, "/data/", tensor.storage_key));
    if (member == nullptr) {
      return Error(
          absl::StrCat("lacks storage ", Quote(tensor.storage_key), " of tensor ", Quote(tensor.name)));
    }
    uint64_t needed = 0;
    if (__builtin_mul_overflow(static_cast<uint64_t>(tensor.storage_elements),
                               uint64_t{DTypeSize(tensor.dtype)}, &needed) ||
        member->size != needed) {
      return Error(absl::StrCat("storage ", Quote(tensor.storage_key), " of tensor ", Quote(tensor.name),
                                " has ", member->size, " bytes; ", tensor.storage_elements, " elements of ",
                                DTypeName(tensor.dtype), " need ", DTypeSize(tensor.dtype), " each"));
    }
    if (!member->deflated) return member->raw;
    const auto it = unpacked_.find(member);
    if (it != unpacked_.end()) return it->second;
    LANCET_RETURN_IF_ERROR(Spend(member->size, tensor.name));
    LANCET_ASSIGN_OR_RETURN(std::unique_ptr<std::byte[]> content,
                            UnpackZipMember(*member, member->size, path_));
    const absl::Span<const std::byte> span(content.get(), member->size);
    owned_.push_back(std::move(content));
    unpacked_.emplace(member, span);
    return span;
  }

  const std::string& path_;
  const absl::Span<const std::byte> bytes_;
  uint64_t budget_;
  std::unique_ptr<const ZipArchive> archive_;
  std::string prefix_;
  absl::flat_hash_map<const ZipMember*, absl::Span<const std::byte>> unpacked_;
  std::vector<std::unique_ptr<std::byte[]>> owned_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TorchZipFile>> TorchZipFile::Open(const std::string& path) {
  LANCET_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  return Create(std::move(file));
}

absl::StatusOr<std::unique_ptr<TorchZipFile>> TorchZipFile::Create(std::unique_ptr<const ReadOnlyFile> file,
                                                                   const TorchZipOptions& options) {
  auto dict = std::unique_ptr<TorchZipFile>(new TorchZipFile(std::move(file)));
  Builder builder(*dict->file_, options);
  LANCET_ASSIGN_OR_RETURN(const std::vector<PickledTensor> tensors, builder.ReadPickle());
  for (const PickledTensor& tensor : tensors) {
    LANCET_ASSIGN_OR_RETURN(const TensorView view, builder.View(tensor));
    dict->names_.push_back(tensor.name);
    dict->tensors_.emplace(tensor.name, view);
  }
  std::sort(dict->names_.begin(), dict->names_.end());
  dict->owned_ = builder.TakeOwned();
  return dict;
}

absl::StatusOr<TensorView> TorchZipFile::Get(absl::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat(path(), ": has no tensor ", Quote(name)));
  }
  return it->second;
}

void TorchZipFile::Release(absl::string_view name) const {
  const auto it = tensors_.find(name);
  if (it != tensors_.end()) DropPagesOf(*file_, it->second.data, static_cast<size_t>(it->second.num_bytes()));
}

}  // namespace lancet

// A PyTorch archive (torch.save since 1.6) of a flat state dict, as a StateDict. Such a file is a zip
// archive:
//   <name>/data.pkl      a pickle that describes the dict (pickle_reader.h)
//   <name>/data/<key>    the bytes of each storage, usually stored, not deflated
//   <name>/byteorder     "little", in newer files
// Nothing in the file is executed, and nothing outside of it is opened.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/mapped_file.h"
#include "common/state_dict.h"

namespace lancet {

struct TorchZipOptions {
  // Memory for deflated storages and for tensors whose elements are not in row-major order; all others stay
  // in the map. The stock autoencoder has 2.8 GB.
  uint64_t max_materialised_bytes = uint64_t{4} << 30;
};

class TorchZipFile final : public StateDict {
 public:
  // InvalidArgument names the file and what is wrong. CRC-32 sums are checked for what is unpacked, and for
  // the pickle; not for stored tensors, which stay unread until somebody uses them.
  static absl::StatusOr<std::unique_ptr<TorchZipFile>> Open(const std::string& path);
  static absl::StatusOr<std::unique_ptr<TorchZipFile>> Create(std::unique_ptr<const ReadOnlyFile> file,
                                                              const TorchZipOptions& options = {});

  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override { return tensors_.contains(name); }
  absl::StatusOr<TensorView> Get(absl::string_view name) const override;
  const std::string& path() const override { return file_->path(); }
  void Release(absl::string_view name) const override;

 private:
  explicit TorchZipFile(std::unique_ptr<const ReadOnlyFile> file) : file_(std::move(file)) {}

  std::unique_ptr<const ReadOnlyFile> file_;
  std::vector<std::string> names_;
  absl::flat_hash_map<std::string, TensorView> tensors_;
  std::vector<std::unique_ptr<std::byte[]>> owned_;  // unpacked storages, tensors put in order
};

}  // namespace lancet

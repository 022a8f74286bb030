// Writes a safetensors file tensor by tensor, in any order and by pieces: nothing of it is held in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/dtype.h"
#include "common/tensor_view.h"

namespace lancet {

class StateDictWriter {
 public:
  struct Tensor {
    std::string name;
    DType dtype = DType::kU8;
    Shape shape;
  };

  // Creates the file, which must not exist, takes the room that it needs and writes its header. Tensors lie
  // in it in the order of falling element size, then of names, so that each is aligned. ResourceExhausted if
  // the disk is full.
  static absl::StatusOr<std::unique_ptr<StateDictWriter>> Create(const std::string& path,
                                                                 std::vector<Tensor> tensors);
  ~StateDictWriter();
  StateDictWriter(const StateDictWriter&) = delete;
  StateDictWriter& operator=(const StateDictWriter&) = delete;

  // Bytes of a tensor from byte `offset` of it on. InvalidArgument for an unknown name or too many bytes.
  absl::Status Write(absl::string_view name, uint64_t offset, absl::Span<const std::byte> bytes);
  template <typename T>
  absl::Status Write(absl::string_view name, absl::Span<const T> values) {
    return Write(
        name, 0,
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(T)));
  }

  uint64_t total_bytes() const { return total_bytes_; }      // of data
  uint64_t written_bytes() const { return written_bytes_; }  // of data, so far

  // Everything is on the disk when this returns. FailedPrecondition if not as many bytes were written as the
  // tensors have.
  absl::Status Finish();

 private:
  StateDictWriter(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  absl::Status WriteAt(uint64_t at, const void* data, size_t size);

  struct Place {
    uint64_t begin = 0;  // in the file
    uint64_t size = 0;
  };
  const std::string path_;
  int fd_;
  uint64_t total_bytes_ = 0;
  uint64_t written_bytes_ = 0;
  absl::flat_hash_map<std::string, Place> places_;
};

}  // namespace lancet

// Keys and values of one sequence on a device, for every layer.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/status_macros.h"
#include "kernels/cuda/device_array.h"
#include "kernels/cuda/qk_rope.h"

namespace lancet {

// Layout: [layer][keys, then values][capacity][kv heads * head_dim] bf16. Behind the cached tokens there is
// room for the rows of the block that is being computed, whether they stay or not: so a block's keys always
// lie in one piece behind those that it sees.
class CudaKvCache {
 public:
  static absl::StatusOr<CudaKvCache> Create(int64_t num_layers, int64_t capacity_tokens, int64_t kv_cols) {
    CudaKvCache cache;
    cache.num_layers_ = num_layers;
    cache.capacity_ = capacity_tokens;
    cache.kv_cols_ = kv_cols;
    LANCET_ASSIGN_OR_RETURN(cache.data_,
                            DeviceArray<bf16>::Create(num_layers * 2 * capacity_tokens * kv_cols));
    return cache;
  }
  CudaKvCache() = default;

  int64_t tokens() const { return tokens_; }
  int64_t capacity() const { return capacity_; }
  int64_t kv_cols() const { return kv_cols_; }
  bf16* data() const { return data_.data(); }
  int64_t layer_stride() const { return 2 * capacity_ * kv_cols_; }
  int64_t v_offset() const { return capacity_ * kv_cols_; }
  cuda::KvSlot Slot(int64_t token) const { return {data() + token * kv_cols_, layer_stride(), v_offset()}; }
  void Advance(int64_t count) { tokens_ += count; }

  // Copies the other's tokens, which fit. Enqueues.
  absl::Status CopyFrom(const CudaKvCache& other, cudaStream_t stream) {
    tokens_ = other.tokens_;
    if (tokens_ == 0 || kv_cols_ == 0) return absl::OkStatus();
    return CudaStatus(
        cudaMemcpy2DAsync(data(), static_cast<size_t>(v_offset()) * sizeof(bf16), other.data(),
                          static_cast<size_t>(other.v_offset()) * sizeof(bf16),
                          static_cast<size_t>(tokens_ * kv_cols_) * sizeof(bf16),
                          static_cast<size_t>(2 * num_layers_), cudaMemcpyDeviceToDevice, stream),
        "copy of a cache");
  }

 private:
  int64_t num_layers_ = 0;
  int64_t capacity_ = 0;
  int64_t kv_cols_ = 0;
  int64_t tokens_ = 0;
  DeviceArray<bf16> data_;
};

}  // namespace lancet

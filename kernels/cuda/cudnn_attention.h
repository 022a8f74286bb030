// Full (unmasked) attention of a picture's rows through cuDNN's fused kernel: the bulk of a denoise step.
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <list>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bf16.h"

namespace lancet {

// Rows of q and out lie q_stride and out_stride values apart, heads head_dim apart; keys and values kv_stride
// apart.
struct PictureAttentionArgs {
  const bf16* q = nullptr;  // [rows, heads * head_dim]
  int64_t q_stride = 0;
  const bf16* k = nullptr;  // [keys, kv_heads * head_dim]
  const bf16* v = nullptr;
  int64_t kv_stride = 0;
  bf16* out = nullptr;  // [rows, heads * head_dim]
  int64_t out_stride = 0;
  int64_t rows = 0;
  int64_t keys = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

// Plans are made per shape and kept for the last few. Not thread-safe. One per stream: launches of a plan
// share its workspace.
class CudnnAttention {
 public:
  // Enqueues on the stream of `handle`. Both outlive this.
  explicit CudnnAttention(cudnnHandle_t handle);
  ~CudnnAttention();

  // out = softmax(q k^T / sqrt(head_dim)) v. Unimplemented if cuDNN has no plan for the shape on this device.
  absl::Status Run(const PictureAttentionArgs& args);

  // Changes when a plan is dropped: graphs that were captured before may read its workspace.
  int64_t generation() const { return generation_; }

 private:
  struct Plan;
  absl::StatusOr<Plan*> PlanFor(const PictureAttentionArgs& args);

  cudnnHandle_t handle_;
  std::list<Plan> plans_;  // most recently used first
  int64_t generation_ = 0;
};

}  // namespace lancet

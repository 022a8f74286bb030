// The Mixture-of-Transformers trunk of one rank on a device: layers of attention and MLP over a packed pass.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/model_config.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/qk_rope.h"
#include "kernels/cuda/row_ops.h"
#include "worker/cuda/cuda_pass.h"
#include "worker/cuda/cuda_trunk_weights.h"

namespace lancet {

// Not thread-safe. Everything is enqueued on the context's stream; nothing waits.
class CudaTrunk {
 public:
  // Takes scratch for passes of up to max_rows rows in max_blocks blocks.
  static absl::StatusOr<std::unique_ptr<CudaTrunk>> Create(const CudaContext& ctx, const ModelConfig& config,
                                                           CudaTrunkWeights weights, CudaProducts products,
                                                           int64_t max_rows, int64_t max_blocks);

  const CudaTrunkWeights& weights() const { return weights_; }
  MatmulPlans& matmul() { return matmul_; }

  // The residual stream of the next pass, [max_rows, hidden]: few rows, then many, then gen. The caller
  // writes embeddings here before Forward and reads the final stream from here afterwards.
  bf16* stream_rows(int64_t first = 0) const { return stream_.data() + first * config_.hidden_size; }

  // Copies what a pass needs to know to the device. Separate from Forward, which may be captured in a graph:
  // launches allow for single rows with as many keys as the longest has, rounded up to a multiple of
  // `key_step`.
  absl::Status Prepare(const CudaPass& pass, int key_step);
  // A captured Forward serves all passes of the same numbers of rows and the same split capacity, in keys.
  int split_capacity() const { return split_capacity_; }
  // Changes when memory that Forward uses has moved: graphs captured before are of no use.
  int memory_generation() const { return memory_generation_; }

  // Runs every layer over the prepared pass. Caches are not advanced.
  absl::Status Forward(const CudaPass& pass);

  // y = dense(x) for many rows: [rows, d.cols] -> [rows, d.rows].
  absl::Status Dense(const CudaDense& dense, const bf16* x, int64_t rows, bf16* y);

 private:
  // Rows [first, first + count) of the pass, all of one expert.
  struct Rows {
    int64_t first = 0;
    int64_t count = 0;
    const CudaExpert* expert = nullptr;
  };

  CudaTrunk(const CudaContext& ctx, const ModelConfig& config, CudaTrunkWeights weights)
      : ctx_(ctx), config_(config), weights_(std::move(weights)), matmul_(ctx), cudnn_(ctx) {}

  absl::Status FewQkv(const Rows& rows);
  absl::Status FewOut(const Rows& rows);
  absl::Status FewMlp(const Rows& rows);
  absl::Status ManyQkv(const Rows& rows);
  absl::Status ManyOut(const Rows& rows);
  absl::Status ManyMlp(const Rows& rows);
  cuda::QkRopeArgs RopeArgs(const Rows& rows, int layer) const;
  absl::Status Attend(const Rows& und, int layer, bool fresh);
  absl::Status AttendLarge(int layer);
  // y (+)= x w^T (+ bias). x is what a step wrote to Activations(linear), or, if the product is bf16, `x`.
  absl::Status Product(const CudaLinear& linear, const bf16* x, int64_t rows, bool accumulate, bf16* y);
  cuda::RowOutput Activations(const CudaLinear& linear) const;

  const CudaContext& ctx_;
  const ModelConfig config_;
  const CudaTrunkWeights weights_;
  MatmulPlans matmul_;
  CudnnAttention cudnn_;
  bool cudnn_works_ = true;  // until it refuses a shape
  int split_capacity_ = 0;
  int memory_generation_ = 0;
  int64_t max_rows_ = 0;
  int64_t few_capacity_ = 0;

  CudaPassTables tables_;
  DeviceArray<bf16> stream_;         // [max_rows, hidden]
  DeviceArray<bf16> activation_;     // [max_rows, max(hidden, inner)]: what the next product reads
  DeviceArray<uint8_t> fp8_;         // the same in E4M3, or as E2M1 codes
  DeviceArray<float> factors_;       // [max_rows]: of E4M3 rows
  DeviceArray<uint8_t> fp4_scales_;  // tiled
  DeviceArray<float> constants_;     // 0, 1: beta, and the factor of NVFP4 activations
  DeviceArray<bf16> qkv_;            // [max_rows, (heads + 2 kv heads) head_dim]
  DeviceArray<bf16> attn_;           // [max_rows, heads head_dim]
  DeviceArray<bf16> gate_up_;        // [max_rows, 2 inner]
  DeviceArray<bf16> cos_, sin_;      // [max_rows, head_dim / 2]
  DeviceArray<float> inverse_frequency_;
  DeviceArray<float> partial_;  // split attention
  DeviceArray<uint32_t> tickets_;
};

}  // namespace lancet

// The Mixture-of-Transformers trunk of one rank on a device: layers of attention and MLP over a packed pass.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/bf16.h"
#include "common/model_config.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/cuda_handle.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/qk_rope.h"
#include "kernels/cuda/row_ops.h"
#include "worker/cuda/cuda_pass.h"
#include "worker/cuda/cuda_trunk_weights.h"

namespace lancet {

// What a layer has computed when attention is done, for comparison.
struct CudaLayerTrace {
  // [rows, (heads + 2 kv heads) head_dim]: q after norm and rotation, except in passes of answers alone
  std::vector<bf16> qkv;
  std::vector<bf16> attn;  // [rows, heads head_dim]
  std::vector<bf16> mid;   // [rows, hidden]: the stream between attention and MLP
};

struct CudaTrunkChoices {
  // Few rows go beside the others on streams of their own, where a pass has both, and large blocks beside
  // each other.
  bool side_streams = true;
  // Gate, up and activation of many rows in one launch, where the device has it.
  bool gated_product = false;
  // Products of E4M3 keep about 14 bits while they sum: a fifth faster.
  bool fast_fp8_sums = true;
};

// Not thread-safe. Everything is enqueued on the context's stream, or begins and ends there; nothing waits.
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

  // Copies what a pass needs to know to the device. Separate from Forward, which may be captured in a graph.
  // Waits only while several passes before this one are on their way, at most until `timeout`.
  absl::Status Prepare(const CudaPass& pass, const CudaPassInputs& inputs, absl::Duration timeout);
  // What the last Prepare brought; addresses are equal for passes of equal shape.
  const CudaPassTables& tables() const { return tables_; }
  // A captured Forward serves all passes that append the same numbers.
  void AppendShape(std::vector<int64_t>& key) const;

  // Runs every layer over the prepared pass. Caches are not advanced.
  absl::Status Forward(const CudaPass& pass);

  // For measurements. Results without side streams are the same to the bit.
  void set_choices(const CudaTrunkChoices& choices) { choices_ = choices; }
  // From now on Forward waits in every layer and leaves that layer's numbers here; null: it does not.
  void set_trace(CudaLayerTrace* trace) { trace_ = trace; }

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
      : ctx_(ctx), config_(config), weights_(std::move(weights)), matmul_(ctx), cudnn_(ctx.cudnn()) {}

  // Lets `waiting` go on when `stream` has come to where it is now.
  absl::Status Join(cudaStream_t waiting, cudaStream_t stream, cudaEvent_t event);
  // Of the first `rows` rows.
  absl::Status Trace(int64_t rows);
  // `overlaps`: of the first launch.
  absl::Status FewQkv(const Rows& rows, bool overlaps);
  absl::Status FewOut(const Rows& rows);
  absl::Status FewMlp(const Rows& rows);
  absl::Status ManyQkv(const Rows& rows);
  absl::Status ManyOut(const Rows& rows);
  absl::Status ManyMlp(const Rows& rows);
  cuda::QkRopeArgs RopeArgs(const Rows& rows, int layer) const;
  // Keys and values of the layer are in the caches, or (fresh) are those of the few rows.
  absl::Status AttendFew(const Rows& few, int layer, bool fresh);
  absl::Status AttendMany(int layer);
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
  CudaTrunkChoices choices_;
  bool has_gated_product_ = false;
  // Of the current pass: that of few rows, or the context's.
  cudaStream_t few_stream_ = nullptr;
  CudaHandle<cudaStream_t, cudaStreamDestroy> beside_;  // few rows
  CudaHandle<cudaStream_t, cudaStreamDestroy> paired_;  // every other large block
  CudaHandle<cudnnHandle_t, cudnnDestroy> paired_handle_;
  std::optional<CudnnAttention> paired_cudnn_;
  CudaHandle<cudaEvent_t, cudaEventDestroy> many_done_, few_done_, paired_done_;
  CudaLayerTrace* trace_ = nullptr;
  int64_t max_rows_ = 0;
  int64_t few_capacity_ = 0;

  CudaPassTables tables_;
  DeviceArray<bf16> stream_;         // [max_rows, hidden]
  DeviceArray<bf16> activation_;     // [max_rows, max(hidden, inner)]: what the next product reads
  DeviceArray<uint8_t> fp8_;         // the same in E4M3, or as E2M1 codes
  DeviceArray<float> factors_;       // [max_rows]: of E4M3 rows
  DeviceArray<uint8_t> fp4_scales_;  // tiled
  DeviceArray<float> constants_;     // 0, 1: beta
  DeviceArray<bf16> qkv_;            // [max_rows, (heads + 2 kv heads) head_dim]
  DeviceArray<bf16> attn_;           // [max_rows, heads head_dim]
  DeviceArray<bf16> gate_up_;        // [max_rows, 2 inner]
  DeviceArray<bf16> cos_, sin_;      // [max_rows, head_dim / 2]
  DeviceArray<float> inverse_frequency_;
  DeviceArray<bf16> few_inner_;  // [kMaxFewRows, inner]
};

}  // namespace lancet

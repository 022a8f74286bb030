// The Mixture-of-Transformers trunk of one rank on a device: layers of attention and MLP over a packed pass.
#pragma once

#include <array>
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
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/qk_rope.h"
#include "kernels/cuda/row_ops.h"
#include "worker/collective/device/device_collective.h"
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
  // In a group of two, latents in two halves, the sums of one fetched while the other is computed. Measured
  // slower on two H100s: the copies cost the products more than the sums take.
  bool halves = false;
  // Gate, up and activation of many rows in one launch, where the device has it.
  bool gated_product = false;
  // Products of E4M3 keep about 14 bits while they sum: a fifth faster.
  bool fast_fp8_sums = true;
};

// Not thread-safe. Everything is enqueued on the context's stream, or begins and ends there; nothing waits.
class CudaTrunk {
 public:
  // Takes scratch for passes of up to max_rows rows in max_blocks blocks. `config` counts what this rank owns
  // (ShardConfig).
  static absl::StatusOr<std::unique_ptr<CudaTrunk>> Create(const CudaContext& ctx, const ModelConfig& config,
                                                           CudaTrunkWeights weights, CudaProducts products,
                                                           int64_t max_rows, int64_t max_blocks);

  const CudaTrunkWeights& weights() const { return weights_; }
  MatmulPlans& matmul() { return matmul_; }

  // The residual stream of the next pass, [max_rows, hidden]: few rows, then many, then gen. The caller
  // writes embeddings here before Forward and reads the final stream from here afterwards.
  bf16* stream_rows(int64_t first = 0) const { return stream_.data() + first * config_.hidden_size; }

  // From now on `group`, of this rank's group, adds up what the ranks' products give; null for one rank.
  // `f32_partials`: many rows' partial sums in f32 instead of bf16, the same on every rank.
  absl::Status Attach(DeviceCollective* group, bool f32_partials);
  // Bytes of a rank's partial sums, at most.
  std::array<int64_t, kDeviceLanes> lane_bytes(bool f32_partials) const;

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
  // o and down: added to the stream, or in a group to partial sums, which the group adds up.
  absl::Status FewOut(const Rows& rows);
  absl::Status FewMlp(const Rows& rows);
  absl::Status ManyQkv(const Rows& rows);
  absl::Status ManyOut(const Rows& rows);
  absl::Status ManyMlp(const Rows& rows);
  cuda::QkRopeArgs RopeArgs(const Rows& rows, int layer) const;
  // Keys and values of the layer are in the caches, or (fresh) are those of the few rows.
  absl::Status AttendFew(const Rows& few, int layer, bool fresh);
  // Of the other rows: the small blocks if `small`, and `count` large ones from `first` on.
  absl::Status AttendMany(int layer, bool small, size_t first, size_t count);
  absl::Status AttendLarge(int layer, size_t first, size_t count);
  // y (+)= x w^T (+ bias). x is what a step wrote to Activations(linear), or, if the product is bf16, `x`.
  absl::Status Product(const CudaLinear& linear, const bf16* x, int64_t rows, bool accumulate,
                       MatmulOutput output, void* y);
  // The same, added to the stream or put among the partial sums.
  absl::Status AddProduct(const CudaLinear& linear, const bf16* x, const Rows& rows);
  // RMS norm of many rows as the next product reads them, unless the sum over the ranks left it; bf16 rows.
  absl::StatusOr<const bf16*> Norm(const Rows& rows, const DeviceArray<bf16>& weight, const CudaLinear& next);

  // --- In a group; nothing otherwise. ---
  // Makes room for the partial sums of few rows, and of many.
  absl::Status StartFew(int64_t rows);
  absl::Status StartMany(const CudaPass& pass);
  // Where few rows [first, ...) put what is added to the stream.
  void PutFew(int64_t first, cuda::FewRowsArgs& args) const;
  absl::Status SumFew();
  // Latents in two halves, each a number of large blocks: while the sums of one are fetched, the other is
  // computed. Without halves if there are not two worth it.
  struct Half {
    Rows rows;  // without the expert, which changes by layer
    size_t first_block = 0;
    size_t num_blocks = 0;
    RowSum sum;
  };
  std::array<Half, 2> SplitHalves(const CudaPass& pass) const;
  absl::Status ForwardHalves(const CudaPass& pass, const std::array<Half, 2>& halves);
  absl::Status StartHalf(const Half& half);
  absl::Status FetchHalf(const Half& half, int index);
  absl::Status AddHalf(const Half& half, int index, const DeviceArray<bf16>* weight, const CudaLinear* next);
  static Rows RowsOf(const Half& half, const CudaExpert& expert) {
    return {half.rows.first, half.rows.count, &expert};
  }
  // und, gen: weights of the norms before the next products, whose Linears follow; null: none.
  absl::Status SumMany(const CudaPass& pass, const DeviceArray<bf16>* und, const DeviceArray<bf16>* gen,
                       const CudaLinear* next_und, const CudaLinear* next_gen);

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
  DeviceCollective* group_ = nullptr;  // null in a group of one
  int group_generation_ = 0;           // captured passes know a group's memory
  bool f32_partials_ = false;
  CudaHandle<cudaStream_t, cudaStreamDestroy> fetches_;
  CudaHandle<cudaEvent_t, cudaEventDestroy> products_done_[2], fetched_[2];  // by half
  RowSum few_sum_, many_sum_;                                                // of the pass being enqueued
  float* few_partials_ = nullptr;
  cuda::SharedSums few_shared_;  // instead, if the group can share
  void* many_partials_ = nullptr;
  int64_t first_partial_row_ = 0;
  bool normed_by_sum_ = false;  // rows of normed_ are those of the next product
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
  DeviceArray<bf16> normed_;     // [max_rows, hidden]: many rows, normalised; in a group
};

}  // namespace lancet

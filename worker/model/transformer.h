// The Mixture-of-Transformers trunk of one rank: layers of attention and MLP over a packed pass, split over
// the ranks of a group by ShardPlan.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/bf16.h"
#include "common/model_config.h"
#include "common/tensor_view.h"
#include "kernels/kernel_context.h"
#include "worker/collective/collective.h"
#include "worker/loader/device_shapes.h"
#include "worker/loader/shard_plan.h"
#include "worker/model/pass.h"
#include "worker/model/rope_table.h"
#include "worker/model/trunk_weights.h"

namespace lancet {

// Rows that go through o_proj, and through the MLP, at a time: bounds scratch and the size of an all-reduce,
// and is large enough that expanding a weight is paid for. The same on every rank, so all issue the same
// collectives.
inline constexpr int64_t kRowChunk = 1024;

// Intermediate values of one layer, for comparison with goldens: this rank's heads only. Rows as in the pass.
struct LayerTrace {
  std::vector<bf16> q, k, v;  // [rows, heads * head_dim], q and k after rotation
  std::vector<bf16> attn;     // [rows, query heads * head_dim]
  std::vector<bf16> mid;      // [rows, hidden]: after the first residual add
};

// Sees what goes into a product: rows of one expert, in pieces. For statistics; the view ends with the call.
using LinearInputSink =
    std::function<void(int64_t layer, Expert expert, FusedLinear linear, ConstMatrixView<bf16> x)>;

// Not thread-safe. Weights and scratch live as long as the object.
class Transformer {
 public:
  // Allocates scratch for passes of up to max_rows rows.
  Transformer(const KernelContext& ctx, const ModelConfig& config, const ShardPlan& plan,
              TrunkWeights weights, int64_t max_rows);

  const TrunkWeights& weights() const { return weights_; }
  const ShardPlan& plan() const { return plan_; }
  int64_t max_rows() const { return max_rows_; }
  // Floats of the largest all-reduce.
  int64_t reduce_capacity() const { return kRowChunk * config_.hidden_size; }

  // The residual stream of the next pass, [max_rows, hidden]: the caller writes the rows' embeddings here
  // before Forward and reads the final stream from here afterwards.
  MatrixView<bf16> stream() { return {stream_.data(), max_rows_, config_.hidden_size}; }

  // Runs every layer over the rows of a finished pass and advances the caches of its appending blocks. Each
  // collective call may wait until now + timeout. InvalidArgument if the pass is larger than max_rows or a
  // cache is full.
  absl::Status Forward(const Pass& pass, Collective& collective, absl::Duration timeout);

  // One layer alone, for tests; caches are not advanced.
  absl::Status ForwardLayer(int64_t layer, const Pass& pass, Collective& collective, absl::Duration timeout,
                            LayerTrace* trace);

  // Called before every product of a layer from now on; null for none.
  void set_input_sink(LinearInputSink sink) { input_sink_ = std::move(sink); }

 private:
  absl::Status Prepare(const Pass& pass);
  absl::Status Attend(int64_t layer, const Pass& pass, Collective& collective, absl::Duration timeout,
                      LayerTrace* trace);
  // Attention of every block, then appends keys and values where blocks are cached.
  absl::Status AttendBlocks(int64_t layer, const Pass& pass, MatrixView<bf16> qkv, MatrixView<bf16> attn);
  absl::Status Mlp(int64_t layer, const Pass& pass, Collective& collective, absl::Duration timeout);
  void ShowInput(int64_t layer, Expert expert, FusedLinear linear, ConstMatrixView<bf16> x) const {
    if (input_sink_ != nullptr) input_sink_(layer, expert, linear, x);
  }

  const KernelContext& ctx_;
  const ModelConfig config_;
  const ShardPlan plan_;
  const RopeTable rope_;
  const TrunkWeights weights_;
  const int64_t max_rows_;

  std::vector<bf16> stream_;     // [max_rows, hidden]
  std::vector<bf16> normed_;     // [kRowChunk, hidden]
  std::vector<bf16> qkv_;        // [max_rows, (Q + 2 K) head_dim]
  std::vector<bf16> attn_;       // [max_rows, Q head_dim]
  std::vector<bf16> gate_up_;    // [kRowChunk, 2 inner]
  std::vector<bf16> inner_;      // [kRowChunk, inner]
  std::vector<bf16> cos_, sin_;  // [max_rows, head_dim / 2]
  std::vector<uint8_t> wide_;    // [rows]
  std::vector<uint8_t> single_;  // [rows]
  LinearInputSink input_sink_;
};

}  // namespace lancet

// The weights of a rank's part of the Mixture-of-Transformers trunk, by name.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/model_config.h"
#include "common/partition.h"
#include "common/state_dict.h"
#include "kernels/bf16_gemm.h"
#include "kernels/kernel_context.h"
#include "worker/loader/linear_policy.h"
#include "worker/loader/shard_plan.h"
#include "worker/model/head_linear.h"
#include "worker/model/layer_linear.h"

namespace lancet {

// Rows of a pass go through one of two sets of weights: text and the markers around pictures through `und`,
// latents through `gen`.
enum class Expert { kUnd = 0, kGen = 1 };
inline constexpr int kNumExperts = 2;

// One expert of one layer. H = hidden size, D = head_dim; Q, K = query and key/value heads of this rank; I =
// inner columns of this rank.
struct ExpertWeights {
  std::vector<bf16> input_norm;  // [H]
  std::vector<bf16> q_norm;      // [D]
  std::vector<bf16> k_norm;      // [D]
  LayerLinear qkv;               // [(Q + 2 K) D, H]: q, then k, then v
  std::vector<bf16> qkv_bias;    // [(Q + 2 K) D]
  LayerLinear o;                 // [H, Q D]
  std::vector<bf16> post_norm;   // [H]
  LayerLinear gate_up;           // [2 I, H]: gate, then up
  LayerLinear down;              // [H, I]
};

struct LayerWeights {
  ExpertWeights expert[kNumExperts];
};

struct TrunkWeights {
  std::unique_ptr<bf16[]> embed_tokens;  // [vocab, H]
  std::vector<LayerWeights> layers;
  std::vector<bf16> gen_norm;  // [H]: the final norm of latents
  std::vector<bf16> und_norm;  // [H]: the final norm of text
  // The output head's rows of this rank, [head_rows.size(), H]; without rows unless the checkpoint can
  // answer.
  HeadLinear head;
  Range head_rows;      // token ids
  Bf16Linear time_in;   // [H, F]
  Bf16Linear time_out;  // [H, H]
  Bf16Linear vae2llm;   // [H, 48]
  Bf16Linear llm2vae;   // [48, H]

  int64_t time_features = 0;  // F, 256 in the release

  // Reads and repacks the rank's shard. The checkpoint may go away afterwards. `with_head`: also the output
  // head, split by vocabulary. `policy`: in which arithmetic the NVFP4 Linears are multiplied.
  static absl::StatusOr<TrunkWeights> Load(const KernelContext& ctx, const StateDict& dict,
                                           const ModelConfig& config, const ShardPlan& plan, bool with_head,
                                           const LinearPolicy& policy = {});
};

}  // namespace lancet

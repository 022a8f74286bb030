// The weights of the trunk on a device.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/model_config.h"
#include "common/state_dict.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/device_array.h"
#include "worker/cuda/cuda_linear.h"
#include "worker/loader/linear_policy.h"
#include "worker/loader/shard_plan.h"

namespace lancet {

// How many rows are multiplied: with weights expanded to bf16, re-encoded to E4M3 (activations in E4M3), or
// as they are (activations in NVFP4). Shapes that a device refuses in NVFP4 are multiplied in bf16.
enum class CudaProducts { kBf16, kFp8, kNvfp4 };

// Sizes as in worker/model/trunk_weights.h.
struct CudaExpert {
  DeviceArray<bf16> input_norm, post_norm;  // [H]
  DeviceArray<bf16> q_norm, k_norm;         // [D]
  CudaLinear qkv, o, gate_up, down;
};

// A dense bf16 layer with a bias.
struct CudaDense {
  int64_t rows = 0;
  int64_t cols = 0;
  DeviceArray<bf16> weight;  // [rows, cols]
  DeviceArray<bf16> bias;    // [rows]
};

struct CudaTrunkWeights {
  struct Layer {
    CudaExpert und, gen;
  };
  DeviceArray<bf16> embed_tokens;  // [vocab, H]
  std::vector<Layer> layers;
  DeviceArray<bf16> gen_norm, und_norm;  // [H]
  DeviceArray<bf16> head;                // [head_rows.size(), H]; empty unless asked for
  Range head_rows;                       // token ids: the rank's part of the vocabulary
  CudaDense time0, time2;                // [H, F], [H, H]
  CudaDense vae2llm, llm2vae;            // [H, 48], [48, H]

  // Reads, repacks and uploads this rank's part of everything; `config` is the whole model's. Both experts'
  // Linears are multiplied as `products` says where many rows come, but for those that stay in bf16 by
  // `policy`, which also has the factors of NVFP4 activations; the und expert also has its panels for few
  // rows.
  static absl::StatusOr<CudaTrunkWeights> Load(const CudaContext& ctx, const StateDict& dict,
                                               const ModelConfig& config, const ShardPlan& plan,
                                               CudaProducts products, bool with_head,
                                               const LinearPolicy& policy = {});
  int64_t resident_bytes() const;
};

}  // namespace lancet

// A trunk of the release's layer size with random weights, and passes to run through it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/kernel_context.h"
#include "worker/collective/collective.h"
#include "worker/loader/linear_policy.h"
#include "worker/model/pass.h"
#include "worker/model/transformer.h"

namespace lancet {

inline constexpr int64_t kReleaseLayers = 36;
inline constexpr int64_t kPrefixTokens = 64;  // of a prompt with its template

// One rank's part. Without the output head, and with a token embedding of a few rows.
class TrunkCase {
 public:
  static absl::StatusOr<std::unique_ptr<TrunkCase>> Create(const KernelContext& ctx, int64_t layers,
                                                           int64_t max_rows, int rank, int world_size,
                                                           const LinearPolicy& policy = LinearPolicy());

  Transformer& transformer() { return *transformer_; }
  // Keys and values for `capacity` tokens, of which `tokens` are there: zeros.
  std::unique_ptr<KvCache> MakeCache(int64_t capacity, int64_t tokens) const;

  // Runs the pass on the same random rows each time.
  absl::Status Run(const Pass& pass, Collective& collective);

  // Multiply-adds of the Linears that one row goes through in one layer, over all ranks.
  static double LayerMacs();
  // Those of attention of one row that sees `keys` keys.
  static double AttentionMacs(int64_t keys);
  // Bytes that codes and scales of one expert of one layer take, over all ranks.
  static double ExpertBytes(bool e4m3_scales);

 private:
  TrunkCase() = default;

  ModelConfig config_;
  std::unique_ptr<Transformer> transformer_;
  std::vector<bf16> rows_;  // what every pass begins with
};

// Positions of `count` rows from `first` on, one behind another.
Positions RunOfPositions(int64_t first, int64_t count);

}  // namespace lancet

#include "worker/loader/device_shapes.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/scale_tiles.h"

namespace lancet {
namespace {

constexpr int64_t kInnerAlignment = 128;  // rows of a scale tile, and twice its columns
constexpr int64_t kColumnAlignment = 64;  // columns of a scale tile
constexpr int64_t kRowAlignment = 16;     // output rows of 32 bytes

int64_t RoundUp(int64_t n, int64_t alignment) { return (n + alignment - 1) / alignment * alignment; }

DeviceLinearShape Padded(int64_t rows, int64_t cols) {
  return {rows, cols, RoundUp(rows, kRowAlignment), RoundUp(cols, kColumnAlignment)};
}

}  // namespace

int64_t DeviceLinearShape::scale_bytes() const {
  return ScaleTileBytes(padded_rows, padded_cols / kNvfp4Block);
}

DeviceShapes MakeDeviceShapes(const ModelConfig& config, const ShardPlan& plan) {
  DeviceShapes shapes;
  const int64_t inner = plan.inner.size();
  shapes.padded_inner = RoundUp(inner, kInnerAlignment);
  shapes.linears[static_cast<int>(FusedLinear::kQkv)] =
      Padded(plan.q_cols() + 2 * plan.kv_cols(), config.hidden_size);
  shapes.linears[static_cast<int>(FusedLinear::kO)] = Padded(config.hidden_size, plan.q_cols());
  shapes.linears[static_cast<int>(FusedLinear::kGateUp)] = {
      2 * inner, config.hidden_size, 2 * shapes.padded_inner, RoundUp(config.hidden_size, kColumnAlignment)};
  shapes.linears[static_cast<int>(FusedLinear::kDown)] = {
      config.hidden_size, inner, RoundUp(config.hidden_size, kRowAlignment), shapes.padded_inner};
  return shapes;
}

absl::StatusOr<ModelConfig> ShardConfig(const ModelConfig& config, const ShardPlan& plan) {
  ModelConfig mine = config;
  mine.num_heads = plan.query_heads.size();
  mine.num_kv_heads = plan.kv_heads.size();
  if (plan.world_size > 1) mine.intermediate_size = MakeDeviceShapes(config, plan).padded_inner;
  const int64_t group = mine.num_kv_heads > 0 ? mine.num_heads / mine.num_kv_heads : 0;
  bool even = mine.num_heads > 0 && group * mine.num_kv_heads == mine.num_heads;
  for (int64_t head = 0; even && head < mine.num_heads; ++head) even = plan.kv_head_of[head] == head / group;
  if (!even || plan.inner.size() == 0) {
    return absl::UnimplementedError(absl::StrCat(
        "rank ", plan.rank, " of ", plan.world_size, " would own ", mine.num_heads, " of ", config.num_heads,
        " query heads over ", mine.num_kv_heads, " key/value heads and ", plan.inner.size(),
        " inner columns; a device takes the same number of query heads for "
        "each key/value head, and something of every Linear"));
  }
  return mine;
}

}  // namespace lancet

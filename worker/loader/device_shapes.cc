#include "worker/loader/device_shapes.h"

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

}  // namespace lancet

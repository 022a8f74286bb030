// What the matrix units of a GPU ask of a rank's Linears: extents padded so that every rank's product is
// legal, for any number of ranks. Integer arithmetic on a shard plan alone.
//
// A block-scaled (VEC16_UE4M3) product reads K in 32-element steps and its scale tiles cover 128 rows x 64
// columns; outputs are written in rows of 16 bytes. A rank's slice of the MLP's inner width may break all of
// that (eight ranks: 1376 = 10.75 * 128), so it is padded to a multiple of 128 by zero rows in gate and up
// and zero columns in down: silu(0) * 0 = 0 adds nothing to any sum. Attention needs no padding where
// head_dim is a multiple of 64; smaller models' heads are padded the same way at the end of the slice.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "worker/loader/shard_plan.h"

namespace lancet {

// The fused Linears of a layer as a GPU multiplies them.
enum class FusedLinear { kQkv = 0, kO = 1, kGateUp = 2, kDown = 3 };
inline constexpr int kNumFusedLinears = 4;

struct DeviceLinearShape {
  int64_t rows = 0;  // outputs of this rank, without padding
  int64_t cols = 0;  // inputs of this rank, without padding
  int64_t padded_rows = 0;
  int64_t padded_cols = 0;

  // Bytes of the tiled scales of the padded weight (kernels/scale_tiles.h).
  int64_t scale_bytes() const;
  // Whether a VEC16_UE4M3 product may be asked for: columns in whole 64s, rows in whole 16s.
  bool fits_fp4() const {
    return padded_rows > 0 && padded_cols > 0 && padded_cols % 64 == 0 && padded_rows % 16 == 0;
  }
};

struct DeviceShapes {
  int64_t padded_inner = 0;  // columns of the MLP's inner width on this rank, padding included
  std::array<DeviceLinearShape, kNumFusedLinears> linears;

  const DeviceLinearShape& of(FusedLinear linear) const { return linears[static_cast<int>(linear)]; }
};

// The inner width is padded to a multiple of 128 whenever it isn't one; so is nothing else, unless it must be
// to be legal.
DeviceShapes MakeDeviceShapes(const ModelConfig& config, const ShardPlan& plan);

// `config` with the counts that a rank owns of it: query and key/value heads, and the inner width, in a group
// of several with its padding. Unimplemented where a rank's query heads do not divide evenly among its
// key/value heads, or it owns nothing of a Linear: then its attention kernels have no shape.
absl::StatusOr<ModelConfig> ShardConfig(const ModelConfig& config, const ShardPlan& plan);

}  // namespace lancet

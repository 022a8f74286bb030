#include "worker/loader/device_shapes.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/scale_tiles.h"
#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

ModelConfig ReleaseConfig() {
  ModelConfig config;
  config.hidden_size = 2048;
  config.num_layers = 36;
  config.num_heads = 16;
  config.num_kv_heads = 2;
  config.head_dim = 128;
  config.intermediate_size = 11008;
  return config;
}

DeviceShapes ShapesFor(const ModelConfig& config, int rank, int world_size) {
  const auto plan = MakeShardPlan(config, rank, world_size);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return MakeDeviceShapes(config, *plan);
}

struct Expected {
  int world_size;
  int64_t qkv_rows, o_cols, inner, padded_inner;
};

TEST(DeviceShapesTest, ReleaseShapesOfEveryGroupAreLegal) {
  for (const Expected& e : {Expected{1, 2560, 2048, 11008, 11008}, Expected{2, 1280, 1024, 5504, 5504},
                            Expected{4, 768, 512, 2752, 2816}, Expected{8, 512, 256, 1376, 1408}}) {
    for (int rank = 0; rank < e.world_size; ++rank) {
      SCOPED_TRACE(testing::Message() << "rank " << rank << " of " << e.world_size);
      const DeviceShapes shapes = ShapesFor(ReleaseConfig(), rank, e.world_size);
      EXPECT_EQ(shapes.of(FusedLinear::kQkv).rows, e.qkv_rows);
      EXPECT_EQ(shapes.of(FusedLinear::kQkv).padded_rows, e.qkv_rows);
      EXPECT_EQ(shapes.of(FusedLinear::kO).cols, e.o_cols);
      EXPECT_EQ(shapes.of(FusedLinear::kO).padded_cols, e.o_cols);
      EXPECT_EQ(shapes.of(FusedLinear::kGateUp).rows, 2 * e.inner);
      EXPECT_EQ(shapes.of(FusedLinear::kGateUp).padded_rows, 2 * e.padded_inner);
      EXPECT_EQ(shapes.of(FusedLinear::kDown).cols, e.inner);
      EXPECT_EQ(shapes.of(FusedLinear::kDown).padded_cols, e.padded_inner);
      EXPECT_EQ(shapes.padded_inner, e.padded_inner);
      for (const DeviceLinearShape& linear : shapes.linears) {
        EXPECT_TRUE(linear.fits_fp4()) << linear.padded_rows << " x " << linear.padded_cols;
        EXPECT_EQ(linear.padded_cols % 64, 0);   // no tail in K, no padded scale columns
        EXPECT_EQ(linear.padded_rows % 128, 0);  // no tail in scale rows
        EXPECT_EQ(linear.scale_bytes(), linear.padded_rows * linear.padded_cols / 16);
      }
    }
  }
}

TEST(DeviceShapesTest, EveryRankOfEveryGroupCoversTheLinearsOnce) {
  const ModelConfig config = ReleaseConfig();
  for (int world_size = 1; world_size <= 16; ++world_size) {
    int64_t o_cols = 0;
    int64_t gate_up_rows = 0;
    int64_t down_cols = 0;
    for (int rank = 0; rank < world_size; ++rank) {
      SCOPED_TRACE(testing::Message() << "rank " << rank << " of " << world_size);
      const auto plan = MakeShardPlan(config, rank, world_size);
      ASSERT_TRUE(plan.ok());
      const DeviceShapes shapes = MakeDeviceShapes(config, *plan);
      EXPECT_EQ(shapes.of(FusedLinear::kQkv).rows, plan->q_cols() + 2 * plan->kv_cols());
      EXPECT_EQ(shapes.of(FusedLinear::kQkv).cols, config.hidden_size);
      EXPECT_EQ(shapes.of(FusedLinear::kO).rows, config.hidden_size);
      EXPECT_EQ(shapes.of(FusedLinear::kGateUp).cols, config.hidden_size);
      EXPECT_EQ(shapes.of(FusedLinear::kDown).rows, config.hidden_size);
      // Activations of the padded width go from one product into the other.
      EXPECT_EQ(shapes.of(FusedLinear::kGateUp).padded_rows, 2 * shapes.padded_inner);
      EXPECT_EQ(shapes.of(FusedLinear::kDown).padded_cols, shapes.padded_inner);
      for (const DeviceLinearShape& linear : shapes.linears) {
        EXPECT_TRUE(linear.fits_fp4());
        EXPECT_EQ(linear.padded_cols % 64, 0);
        EXPECT_EQ(linear.padded_rows % 16, 0);
        EXPECT_LT(linear.padded_cols - linear.cols, 128);
        EXPECT_LT(linear.padded_rows - linear.rows, 2 * 128);
      }
      o_cols += shapes.of(FusedLinear::kO).cols;
      gate_up_rows += shapes.of(FusedLinear::kGateUp).rows;
      down_cols += shapes.of(FusedLinear::kDown).cols;
    }
    EXPECT_EQ(o_cols, config.num_heads * config.head_dim);
    EXPECT_EQ(gate_up_rows, 2 * config.intermediate_size);
    EXPECT_EQ(down_cols, config.intermediate_size);
  }
}

// A matrix is cut, padded with zeros and tiled, in this order; each byte of a rank's tiles is the scale of
// its place in the whole matrix, or zero.
TEST(DeviceShapesTest, ASliceOfScalesIsPaddedAndTiledInPlace) {
  const ModelConfig config = ReleaseConfig();
  const int64_t all_blocks = config.intermediate_size / 16;
  const auto scale_at = [](int64_t row, int64_t block) {
    return static_cast<uint8_t>(1 + (row * 31 + block * 7) % 125);
  };
  constexpr int64_t kRows = 160;  // of down_proj: its first tile of rows and a part of the next
  for (const int world_size : {1, 2, 4, 8}) {
    int64_t seen = 0;
    for (int rank = 0; rank < world_size; ++rank) {
      SCOPED_TRACE(testing::Message() << "rank " << rank << " of " << world_size);
      const auto plan = MakeShardPlan(config, rank, world_size);
      ASSERT_TRUE(plan.ok());
      const int64_t blocks = MakeDeviceShapes(config, *plan).padded_inner / 16;
      const int64_t own = plan->inner.size() / 16;
      std::vector<uint8_t> scales(kRows * blocks);
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t b = 0; b < own; ++b) {
          scales[r * blocks + b] = scale_at(r, plan->inner.begin / 16 + b);
        }
      }
      const std::vector<uint8_t> tiled = TileScales(scales, kRows, blocks);
      ASSERT_EQ(static_cast<int64_t>(tiled.size()), 256 * blocks);
      std::vector<int> uses(tiled.size());
      for (int64_t r = 0; r < 256; ++r) {
        for (int64_t b = 0; b < blocks; ++b) {
          const int64_t at = ScaleTileOffset(r, b, blocks);
          ++uses[at];
          const bool real = r < kRows && b < own;
          ASSERT_EQ(tiled[at], real ? scale_at(r, plan->inner.begin / 16 + b) : 0) << r << ", " << b;
        }
      }
      EXPECT_TRUE(std::all_of(uses.begin(), uses.end(), [](int n) { return n == 1; }));
      seen += own;
    }
    EXPECT_EQ(seen, all_blocks);
  }
}

TEST(DeviceShapesTest, OddWorldSizesAndSmallModelsArePadded) {
  ModelConfig config = ReleaseConfig();
  config.hidden_size = 96;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 48;
  config.intermediate_size = 208;
  for (const int world_size : {1, 2, 3}) {
    for (int rank = 0; rank < world_size; ++rank) {
      SCOPED_TRACE(testing::Message() << "rank " << rank << " of " << world_size);
      const DeviceShapes shapes = ShapesFor(config, rank, world_size);
      EXPECT_EQ(shapes.padded_inner % 128, 0);
      EXPECT_EQ(shapes.of(FusedLinear::kQkv).padded_cols, 128);
      for (const DeviceLinearShape& linear : shapes.linears) {
        EXPECT_GE(linear.padded_rows, linear.rows);
        EXPECT_GE(linear.padded_cols, linear.cols);
        EXPECT_EQ(linear.fits_fp4(), linear.padded_rows > 0 && linear.padded_cols > 0);
      }
    }
  }
  // The third rank has no query head: it owns nothing of the attention, and contributes zeros.
  EXPECT_EQ(ShapesFor(config, 2, 3).of(FusedLinear::kO).cols, 0);
}

// Every rank's numbers as the CUDA backend takes them: whole key/value groups, an inner width that the
// products of few rows (32s of gate and up) and of FP4 (64s) can read.
TEST(ShardConfigTest, ReleaseGroupsOfOneTwoFourEight) {
  struct Shard {
    int world_size;
    int64_t heads, kv_heads, inner;
  };
  for (const Shard& e :
       {Shard{1, 16, 2, 11008}, Shard{2, 8, 1, 5504}, Shard{4, 4, 1, 2816}, Shard{8, 2, 1, 1408}}) {
    for (int rank = 0; rank < e.world_size; ++rank) {
      SCOPED_TRACE(testing::Message() << "rank " << rank << " of " << e.world_size);
      const auto plan = MakeShardPlan(ReleaseConfig(), rank, e.world_size);
      ASSERT_TRUE(plan.ok()) << plan.status();
      const auto shard = ShardConfig(ReleaseConfig(), *plan);
      ASSERT_TRUE(shard.ok()) << shard.status();
      EXPECT_EQ(shard->num_heads, e.heads);
      EXPECT_EQ(shard->num_kv_heads, e.kv_heads);
      EXPECT_EQ(shard->intermediate_size, e.inner);
      EXPECT_EQ(shard->hidden_size, 2048);
      EXPECT_EQ(shard->intermediate_size % 64, 0);
    }
  }
}

TEST(ShardConfigTest, RefusesHeadsThatCrossKeyValueGroups) {
  // Three ranks: heads 6 to 10 of the second belong to both key/value heads, three and two of them.
  const auto plan = MakeShardPlan(ReleaseConfig(), 1, 3);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(ShardConfig(ReleaseConfig(), *plan).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(ShardConfigTest, RefusesRanksWithoutHeads) {
  ModelConfig config = ReleaseConfig();
  config.num_heads = 2;
  const auto plan = MakeShardPlan(config, 3, 4);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(ShardConfig(config, *plan).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace lancet

#include "worker/loader/device_shapes.h"

#include "gtest/gtest.h"
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

}  // namespace
}  // namespace lancet

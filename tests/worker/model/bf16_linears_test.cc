// A trunk that keeps some Linears in bf16, loaded whole and split over ranks: what it computes is what the
// quantised trunk computes whose weights these are.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "common/safetensors.h"
#include "common/trunk_check.h"
#include "common/trunk_layout.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"
#include "worker/loader/weight_loader.h"
#include "worker/model/trunk_weights.h"

namespace lancet {
namespace {

constexpr char kNano[] = LANCET_TEST_DATA "/nano";

class Bf16LinearsTest : public ::testing::Test {
 protected:
  // Nano with the Linears of `bases` expanded.
  std::unique_ptr<SafetensorsFile> Expanded(const std::vector<std::string>& bases) const {
    TensorFile tensors = CopyTensors(*nano_);
    for (const TrunkLinear& linear : TrunkLinears(config_)) {
      if (std::find(bases.begin(), bases.end(), linear.base) == bases.end()) continue;
      LinearView view;
      view.nvfp4 = {linear.out,
                    linear.in,
                    nano_->Get(linear.base + ".qweight")->as<uint8_t>(),
                    linear.in / 2,
                    nano_->Get(linear.base + ".scales_bf16")->as<bf16>(),
                    linear.in / 16};
      const std::vector<bf16> dense = StackBf16(absl::MakeConstSpan(&view, 1));
      for (const char* kind : {".qweight", ".scales_fp8", ".scales_bf16"}) {
        tensors.erase(absl::StrCat(linear.base, kind));
      }
      tensors[absl::StrCat(linear.base, ".weight")] = {
          "BF16",
          {linear.out, linear.in},
          std::string(reinterpret_cast<const char*>(dense.data()), dense.size() * sizeof(bf16))};
    }
    return SafetensorsFile::Create(std::make_unique<InMemoryFile>(SerializeTensors(tensors))).value();
  }

  // Largest difference of two Linears' outputs, in units of the outputs' largest.
  double Difference(const LayerLinear& a, const LayerLinear& b) const {
    EXPECT_EQ(a.rows(), b.rows());
    EXPECT_EQ(a.cols(), b.cols());
    if (a.rows() != b.rows() || a.cols() != b.cols()) return INFINITY;
    const TestMatrix<bf16> x = RandomMatrix(5, a.cols(), 4, 7);
    TestMatrix<float> ya(5, a.rows());
    TestMatrix<float> yb(5, a.rows());
    EXPECT_THAT(a.Run(*ctx_, x.view(), {}, ya.view()), IsOk());
    EXPECT_THAT(b.Run(*ctx_, x.view(), {}, yb.view()), IsOk());
    double off = 0;
    double largest = 1e-9;
    for (size_t i = 0; i < ya.data.size(); ++i) {
      off = std::max<double>(off, std::fabs(ya.data[i] - yb.data[i]));
      largest = std::max<double>(largest, std::fabs(ya.data[i]));
    }
    return off / largest;
  }

  const std::unique_ptr<KernelContext> ctx_ = MakeContext(DetectCpuIsa());
  const std::string config_path_ = absl::StrCat(kNano, "/Lance_3B/llm_config.json");
  const ModelConfig config_ =
      ParseModelConfig(ReadTextFile(config_path_, 1 << 20).value(), config_path_).value();
  const std::unique_ptr<SafetensorsFile> nano_ =
      SafetensorsFile::Open(absl::StrCat(kNano, "/Lance_3B-NVFP4/nvfp4_state_dict.safetensors")).value();
};

TEST_F(Bf16LinearsTest, LoadAndMultiplyOnEveryRank) {
  const std::string layer = "language_model.model.layers.1.";
  // One of a fused product, one that is cut by columns, one that is cut by an uneven number of rows.
  const auto dict = Expanded({layer + "self_attn.k_proj", layer + "self_attn.o_proj_moe_gen",
                              layer + "mlp.up_proj", layer + "mlp_moe_gen.down_proj"});
  ASSERT_THAT(CheckTrunkLayout(*dict, config_), IsOk());
  ASSERT_THAT(CheckTrunkValues(*dict, config_, {}), IsOk());
  for (const int world_size : {1, 2}) {
    for (int rank = 0; rank < world_size; ++rank) {
      const ShardPlan plan = MakeShardPlan(config_, rank, world_size).value();
      const auto kept = TrunkWeights::Load(*ctx_, *dict, config_, plan, false);
      const auto quantised = TrunkWeights::Load(*ctx_, *nano_, config_, plan, false);
      ASSERT_THAT(kept, IsOk());
      ASSERT_THAT(quantised, IsOk());
      for (int expert = 0; expert < kNumExperts; ++expert) {
        const ExpertWeights& a = kept->layers[1].expert[expert];
        const ExpertWeights& b = quantised->layers[1].expert[expert];
        for (const auto linear :
             {&ExpertWeights::qkv, &ExpertWeights::o, &ExpertWeights::gate_up, &ExpertWeights::down}) {
          EXPECT_LT(Difference(a.*linear, b.*linear), 1e-5) << "rank " << rank << " of " << world_size;
        }
      }
    }
  }
}

}  // namespace
}  // namespace lancet

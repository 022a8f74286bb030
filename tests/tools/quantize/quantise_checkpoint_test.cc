#include "tools/quantize/quantise_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "absl/strings/match.h"
#include "common/json.h"
#include "common/sharded_state_dict.h"
#include "kernels/quantise.h"
#include "tests/tools/quantize/quantise_testing.h"
#include "tools/quantize/fusion_groups.h"
#include "tools/quantize/linear_rules.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

struct Quantised {
  std::unique_ptr<SafetensorsFile> trunk;
  QuantiseSummary summary;
  std::string meta;
};

Quantised Quantise(const StateDict& source, const QuantiseOptions& options) {
  ThreadPool pool(2);
  const std::string path = FreshPath("nvfp4_state_dict.safetensors");
  auto summary = WriteQuantised(source, MicroConfig(), options, pool, path);
  EXPECT_THAT(summary, IsOk());
  std::string meta = MetaJson(*summary, options);
  return {SafetensorsFile::Open(path).value(), *std::move(summary), std::move(meta)};
}

// Bytes of `got` that differ from `expected`, after checking that names, types and shapes are the same.
int64_t DifferingBytes(const StateDict& got, const StateDict& expected) {
  EXPECT_EQ(got.names(), expected.names());
  int64_t differing = 0;
  for (const std::string& name : expected.names()) {
    const TensorView a = got.Get(name).value();
    const TensorView b = expected.Get(name).value();
    EXPECT_EQ(a.dtype, b.dtype) << name;
    EXPECT_EQ(a.shape, b.shape) << name;
    if (a.num_bytes() != b.num_bytes()) return -1;
    int64_t in_tensor = 0;
    for (int64_t i = 0; i < a.num_bytes(); ++i) in_tensor += a.data[i] != b.data[i];
    differing += in_tensor;
  }
  return differing;
}

// Squared error of all Linears' weights, relative, as the model computes with them: norm times weight.
double WeightError(const StateDict& trunk, const StateDict& source) {
  double off = 0;
  double norm = 0;
  for (const FusionGroup& group : FusionGroups(MicroConfig())) {
    std::vector<double> ratio(group.linears[0].in, 1.0);
    if (!group.norm.empty()) {
      const auto before = ReadSourceVector(source, group.norm + ".weight", group.linears[0].in).value();
      const auto after = ReadSourceVector(trunk, group.norm + ".weight", group.linears[0].in).value();
      for (size_t c = 0; c < ratio.size(); ++c) ratio[c] = static_cast<double>(after[c]) / before[c];
    }
    for (const TrunkLinear& linear : group.linears) {
      const std::vector<double> weight = EffectiveWeight(trunk, linear);
      const SourceMatrix matrix =
          SourceMatrix::Open(source, linear.base + ".weight", linear.out, linear.in).value();
      std::vector<float> row(linear.in);
      for (int64_t r = 0; r < linear.out; ++r) {
        matrix.ReadRow(r, absl::MakeSpan(row));
        for (int64_t c = 0; c < linear.in; ++c) {
          const double d = weight[r * linear.in + c] * ratio[c] - row[c];
          off += d * d;
          norm += static_cast<double>(row[c]) * row[c];
        }
      }
    }
  }
  return std::sqrt(off / norm);
}

absl::Status CheckTrunk(const Quantised& quantised) {
  const ModelConfig config = MicroConfig();
  if (absl::Status status = CheckTrunkLayout(*quantised.trunk, config); !status.ok()) return status;
  const auto meta = ParseTrunkMeta(quantised.meta, "meta", config, quantised.trunk.get());
  if (!meta.ok()) return meta.status();
  return CheckTrunkValues(*quantised.trunk, config, *meta);
}

class QuantiseMicroTest : public ::testing::Test {
 protected:
  const std::unique_ptr<SafetensorsFile> source_ = MicroSource();
  const std::unique_ptr<SafetensorsFile> expected_ =
      SafetensorsFile::Open(MicroPath("Lance_3B-NVFP4/nvfp4_state_dict.safetensors")).value();
  const Calibration calibration_ = Calibration::Open(MicroPath("awq_calibration.safetensors")).value();
};

TEST_F(QuantiseMicroTest, PublishedRecipeIsExactWithTheFactorsGiven) {
  QuantiseOptions options;
  options.recipe = Recipe::kPublished;
  options.calibration = &calibration_;
  uint64_t done = 0;
  uint64_t total = 0;
  options.progress = [&](uint64_t bytes, uint64_t of) {
    EXPECT_GE(bytes, done);
    done = bytes;
    total = of;
  };
  const Quantised quantised = Quantise(*source_, options);
  EXPECT_EQ(DifferingBytes(*quantised.trunk, *expected_), 0);
  EXPECT_THAT(CheckTrunk(quantised), IsOk());
  EXPECT_EQ(done, total);
  EXPECT_EQ(total, quantised.summary.bytes);
  // What readers of published meta files look at is there, and says the same.
  nlohmann::json meta = nlohmann::json::parse(quantised.meta);
  nlohmann::json published =
      nlohmann::json::parse(ReadTextFile(MicroPath("Lance_3B-NVFP4/nvfp4_meta.json"), 1 << 20).value());
  published["tasks_calibrated"] = nlohmann::json::array();
  for (const auto& [key, value] : published.items()) EXPECT_EQ(meta[key], value) << key;
}

TEST_F(QuantiseMicroTest, PublishedRecipeFindsTheFactorsItself) {
  TensorFile statistics =
      CopyTensors(*SafetensorsFile::Open(MicroPath("awq_calibration.safetensors")).value());
  for (auto it = statistics.begin(); it != statistics.end();) {
    it = absl::EndsWith(it->first, ".s") ? statistics.erase(it) : std::next(it);
  }
  const std::string path = FreshPath("statistics.safetensors");
  WriteFile(path, SerializeTensors(statistics));
  const Calibration calibration = Calibration::Open(path).value();
  QuantiseOptions options;
  options.recipe = Recipe::kPublished;
  options.calibration = &calibration;
  const Quantised quantised = Quantise(*source_, options);
  // The last bits of a power differ between libraries: some codes lie on an edge.
  const int64_t differing = DifferingBytes(*quantised.trunk, *expected_);
  EXPECT_GE(differing, 0);
  EXPECT_LT(differing, 60);
}

TEST_F(QuantiseMicroTest, PublishedRecipeWithoutStatisticsHasNoFactors) {
  QuantiseOptions options;
  options.recipe = Recipe::kPublished;
  const Quantised quantised = Quantise(*source_, options);
  EXPECT_THAT(CheckTrunk(quantised), IsOk());
  const nlohmann::json meta = nlohmann::json::parse(quantised.meta);
  EXPECT_EQ(meta["awq_linears"], 0);
  EXPECT_EQ(meta["plain_linears"], 28);
  const std::string norm = "language_model.model.layers.0.input_layernorm.weight";
  std::vector<bf16> before(128);
  ReadRounded(source_->Get(norm).value(), 0, absl::MakeSpan(before));
  EXPECT_EQ(std::memcmp(before.data(), quantised.trunk->Get(norm).value().data, 256), 0);
}

// In w4a16, and with the E4M3 scales that products in NVFP4 take.
TEST_F(QuantiseMicroTest, BestRecipeLosesLessWithEitherKindOfScales) {
  QuantiseOptions options;
  const Quantised best = Quantise(*source_, options);
  EXPECT_THAT(CheckTrunk(best), IsOk());
  options.recipe = Recipe::kPublished;
  const Quantised published = Quantise(*source_, options);

  const ModelConfig config = MicroConfig();
  const TrunkMeta meta = ParseTrunkMeta(best.meta, "meta", config, best.trunk.get()).value();
  EXPECT_EQ(meta.scale_factors.size(), 28u);
  for (const auto& [base, factor] : meta.scale_factors) {
    const TensorView bytes = best.trunk->Get(base + ".scales_fp8").value();
    const TensorView scales = best.trunk->Get(base + ".scales_bf16").value();
    for (int64_t i = 0; i < bytes.num_elements(); ++i) {
      ASSERT_EQ(bytes.as<uint8_t>()[i], EncodeScale(scales.as<bf16>()[i], factor)) << base << " at " << i;
    }
  }
  const auto error = [&](const Quantised& quantised, bool encoded) {
    TensorFile tensors = CopyTensors(*quantised.trunk);
    for (auto& [name, tensor] : tensors) {
      if (!encoded || !absl::EndsWith(name, ".scales_bf16")) continue;
      std::vector<bf16> scales(tensor.data.size() / 2);
      std::memcpy(scales.data(), tensor.data.data(), tensor.data.size());
      const auto given = meta.scale_factors.find(name.substr(0, name.rfind('.')));
      const float factor = &quantised == &best ? given->second : ScaleFactor(scales);
      for (bf16& scale : scales) scale = ToBf16(FromE4m3(EncodeScale(scale, factor)) * factor);
      std::memcpy(tensor.data.data(), scales.data(), tensor.data.size());
    }
    return WeightError(*InMemory(tensors), *source_);
  };
  EXPECT_NEAR(error(published, false), 0.0905, 0.001);
  EXPECT_LT(error(best, false), 0.91 * error(published, false));
  EXPECT_LT(error(best, true), 0.91 * error(published, true));
}

TEST_F(QuantiseMicroTest, BestRecipeUsesStatistics) {
  QuantiseOptions options;
  options.calibration = &calibration_;
  const Quantised best = Quantise(*source_, options);
  EXPECT_THAT(CheckTrunk(best), IsOk());
  EXPECT_THAT(best.summary.without_statistics, ::testing::IsEmpty());
  EXPECT_GT(nlohmann::json::parse(best.meta)["awq_linears"], 0);
}

TEST_F(QuantiseMicroTest, EverySourceFormatGivesTheSame) {
  const Quantised from_f32 = Quantise(*source_, {});
  TensorFile in_bf16 = CopyTensors(*source_);
  for (auto& [name, tensor] : in_bf16) {
    const TensorView view = source_->Get(name).value();
    if (!IsSourceType(view.dtype)) continue;
    std::vector<bf16> values(view.num_elements());
    ReadRounded(view, 0, absl::MakeSpan(values));
    tensor.dtype = "BF16";
    tensor.data.assign(reinterpret_cast<const char*>(values.data()), values.size() * 2);
  }
  EXPECT_EQ(DifferingBytes(*Quantise(*InMemory(in_bf16), {}).trunk, *from_f32.trunk), 0);

  // Two files and an index.
  TensorFile parts[2];
  nlohmann::json index;
  for (const auto& [name, tensor] : in_bf16) {
    const int part = static_cast<int>(index["weight_map"].size() % 2);
    parts[part][name] = tensor;
    index["weight_map"][name] = absl::StrCat("model-", part, ".safetensors");
  }
  const std::string path = FreshPath("model.safetensors.index.json");
  const std::string folder = path.substr(0, path.rfind('/'));
  for (int part : {0, 1}) {
    WriteFile(absl::StrCat(folder, "/model-", part, ".safetensors"), SerializeTensors(parts[part]));
  }
  WriteFile(path, index.dump());
  const auto sharded = OpenSourceStateDict(path);
  ASSERT_THAT(sharded, IsOk());
  EXPECT_EQ(DifferingBytes(*Quantise(**sharded, {}).trunk, *from_f32.trunk), 0);

  // F16 has other values: only close.
  TensorFile in_f16 = in_bf16;
  for (auto& [name, tensor] : in_f16) {
    if (tensor.dtype != "BF16") continue;
    for (size_t i = 0; i < tensor.data.size(); i += 2) {
      uint16_t bits;
      std::memcpy(&bits, &tensor.data[i], 2);
      // Of numbers that F16 has as normal ones; the others become zero.
      const int exponent = ((bits >> 7) & 255) - 127 + 15;
      const uint16_t half =
          exponent > 0 && exponent < 31
              ? static_cast<uint16_t>((bits & 0x8000u) | (exponent << 10) | ((bits & 127u) << 3))
              : static_cast<uint16_t>(bits & 0x8000u);
      std::memcpy(&tensor.data[i], &half, 2);
    }
    tensor.dtype = "F16";
  }
  const Quantised from_f16 = Quantise(*InMemory(in_f16), {});
  EXPECT_THAT(CheckTrunk(from_f16), IsOk());
  EXPECT_LT(WeightError(*from_f16.trunk, *source_), 0.085);
}

TEST_F(QuantiseMicroTest, KeepsLinearsInBf16) {
  const ModelConfig config = MicroConfig();
  QuantiseOptions options;
  options.calibration = &calibration_;
  options.bf16_linears =
      LinearsInBf16("*.layers.0.*=bf16,*.layers.0.mlp.*=nvfp4,*.layers.1.self_attn.k_proj=bf16",
                    TrunkLinears(config))
          .value();
  EXPECT_EQ(options.bf16_linears.size(), 14u - 3 + 1);
  const Quantised quantised = Quantise(*source_, options);
  EXPECT_THAT(CheckTrunk(quantised), IsOk());
  EXPECT_EQ(quantised.summary.linears.size(), 16u);
  EXPECT_EQ(quantised.summary.bf16_linears.size(), 12u);
  const nlohmann::json meta = nlohmann::json::parse(quantised.meta);
  EXPECT_EQ(meta["per_weight"].size(), 16u);
  EXPECT_EQ(meta["bf16_linears"].size(), 12u);
  // Alone behind its norm, a Linear is what it was.
  const std::string name = "language_model.model.layers.0.self_attn.q_proj.weight";
  std::vector<bf16> before(128 * 128);
  ReadRounded(source_->Get(name).value(), 0, absl::MakeSpan(before));
  EXPECT_EQ(std::memcmp(before.data(), quantised.trunk->Get(name).value().data, before.size() * 2), 0);
  EXPECT_LT(WeightError(*quantised.trunk, *source_), WeightError(*Quantise(*source_, {}).trunk, *source_));
}

// Inputs that go together, as those of real models do: what one column's rounding does, others can undo.
TEST_F(QuantiseMicroTest, CompensationLowersTheErrorOfOutputs) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  TensorFile statistics;
  std::map<std::string, std::vector<float>> second_moments;
  for (const FusionGroup& group : FusionGroups(MicroConfig())) {
    const int64_t in = group.linears[0].in;
    const int64_t rows = 4 * in;
    std::vector<float> xtx(in * in, 0.0f);
    std::vector<float> sums(in, 0.0f);
    std::vector<float> x(in);
    for (int64_t r = 0; r < rows; ++r) {
      float common = normal(random);
      for (int64_t c = 0; c < in; ++c) {
        if (c % 8 == 0) common = normal(random);
        x[c] = common + 0.5f * normal(random);
        sums[c] += std::fabs(x[c]);
      }
      for (int64_t i = 0; i < in; ++i) {
        for (int64_t j = 0; j < in; ++j) xtx[i * in + j] += x[i] * x[j];
      }
    }
    const auto bytes = [](const auto& values) {
      return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0]));
    };
    for (const TrunkLinear& linear : group.linears) {
      statistics[linear.base + ".sum_abs"] = {"F32", {in}, bytes(sums)};
      statistics[linear.base + ".n_tokens"] = {"I64", {}, bytes(std::vector<int64_t>{rows})};
      second_moments[linear.base] = xtx;
    }
    statistics[group.linears[0].base + ".xtx"] = {"F32", {in, in}, bytes(xtx)};
  }
  const std::string path = FreshPath("statistics.safetensors");
  WriteFile(path, SerializeTensors(statistics));
  const Calibration calibration = Calibration::Open(path).value();
  QuantiseOptions options;
  options.calibration = &calibration;
  const Quantised best = Quantise(*source_, options);
  options.recipe = Recipe::kGptq;
  const Quantised gptq = Quantise(*source_, options);
  EXPECT_THAT(CheckTrunk(gptq), IsOk());
  // o alone, which has no factors. sum of d H dᵀ over rows d of the weights' error
  const auto output_error = [&](const Quantised& quantised, const TrunkLinear& linear) {
    const std::vector<double> weight = EffectiveWeight(*quantised.trunk, linear);
    const SourceMatrix matrix =
        SourceMatrix::Open(*source_, linear.base + ".weight", linear.out, linear.in).value();
    const std::vector<float>& h = second_moments.at(linear.base);
    std::vector<float> row(linear.in);
    std::vector<double> d(linear.in);
    double sum = 0;
    for (int64_t r = 0; r < linear.out; ++r) {
      matrix.ReadRow(r, absl::MakeSpan(row));
      for (int64_t c = 0; c < linear.in; ++c) d[c] = weight[r * linear.in + c] - row[c];
      for (int64_t i = 0; i < linear.in; ++i) {
        for (int64_t j = 0; j < linear.in; ++j) sum += d[i] * d[j] * h[i * linear.in + j];
      }
    }
    return std::sqrt(sum);
  };
  for (const TrunkLinear& linear : TrunkLinears(MicroConfig())) {
    if (!absl::StrContains(linear.base, "o_proj") && !absl::StrContains(linear.base, "down_proj")) continue;
    EXPECT_LT(output_error(gptq, linear), 0.85 * output_error(best, linear)) << linear.base;
  }
}

TEST_F(QuantiseMicroTest, NamesWhatIsWrongWithASource) {
  ThreadPool pool(1);
  const auto fails = [&](const TensorFile& tensors, absl::string_view what) {
    const std::string path = FreshPath("trunk.safetensors");
    EXPECT_THAT(WriteQuantised(*InMemory(tensors), MicroConfig(), {}, pool, path),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr(std::string(what))));
  };
  const std::string q = "language_model.model.layers.0.self_attn.q_proj.weight";
  const TensorFile whole = CopyTensors(*source_);
  for (const char* name : {"language_model.model.layers.0.self_attn.q_proj.weight",
                           "language_model.model.layers.1.input_layernorm.weight", "vae2llm.weight"}) {
    TensorFile tensors = whole;
    const uint32_t nan = 0x7fc00000u;
    std::memcpy(tensors[name].data.data() + 8, &nan, 4);
    fails(tensors, absl::StrCat("tensor '", name, "' holds a value that is not finite"));
  }
  TensorFile tensors = whole;
  tensors[q].dtype = "I32";
  fails(tensors, "is I32 [128, 128]; expected F32, BF16 or F16 [128, 128]");
  tensors[q] = whole.at(q);
  tensors[q].shape = {64, 256};
  fails(tensors, "is F32 [64, 256]");
  tensors = whole;
  tensors.erase("llm2vae.bias");
  EXPECT_THAT(WriteQuantised(*InMemory(tensors), MicroConfig(), {}, pool, FreshPath("trunk.safetensors")),
              Fails(absl::StatusCode::kNotFound, HasSubstr("llm2vae.bias")));
}

TEST(LinearRulesTest, SaysWhatIsWrong) {
  const std::vector<TrunkLinear> linears = TrunkLinears(MicroConfig());
  EXPECT_EQ(LinearsInBf16("", linears).value().size(), 0u);
  EXPECT_EQ(LinearsInBf16("*=bf16", linears).value().size(), 28u);
  EXPECT_EQ(LinearsInBf16("*=bf16,*_moe_gen*=nvfp4", linears).value().size(), 14u);
  EXPECT_THAT(LinearsInBf16("*.q_proj", linears),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("expected PATTERN=bf16")));
  EXPECT_THAT(LinearsInBf16("*.q_proj=int4", linears),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("expected PATTERN=bf16")));
  EXPECT_THAT(LinearsInBf16("*.x_proj=bf16", linears),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("matches no Linear")));
  EXPECT_THAT(LinearsInBf16(std::string(300, 'x') + "=bf16", linears),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("300 bytes")));
}

}  // namespace
}  // namespace lancet

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/bf16.h"
#include "common/checkpoint.h"
#include "common/safetensors.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"
#include "tools/inspect/inspection.h"
#include "tools/inspect/report.h"

namespace lancet {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

CheckpointInspection InspectNano() {
  CheckpointPaths overrides;
  overrides.model_dir = LANCET_TEST_DATA "/nano";
  const auto checkpoint = Checkpoint::Open(ResolveCheckpoint(overrides).value()).value();
  return InspectCheckpoint(*checkpoint, 1 << 20).value();
}

TEST(InspectTest, CountsTheNanoCheckpoint) {
  const CheckpointInspection nano = InspectNano();
  EXPECT_EQ(nano.schemes, (std::map<std::string, int64_t>{{"nvfp4_awq", 20}, {"nvfp4_minmax", 8}}));
  EXPECT_TRUE(nano.unexpected.empty());
  EXPECT_EQ(nano.trunk.tensors.size(), 124u);
  EXPECT_EQ(nano.trunk.groups.at(TensorKind::kCodes).tensors, 28);
  EXPECT_EQ(nano.trunk.groups.at(TensorKind::kBias).tensors, 12);
  EXPECT_EQ(nano.trunk.groups.at(TensorKind::kNorm).tensors, 18);
  EXPECT_EQ(nano.trunk.groups.at(TensorKind::kEmbedding).bytes, 336 * 512 * 2);
  EXPECT_EQ(nano.trunk.groups.count(TensorKind::kOther), 0u);
  EXPECT_EQ(nano.vae.groups.count(TensorKind::kOther), 0u);
  EXPECT_EQ(nano.vae.groups.at(TensorKind::kVaeDecoder).tensors, 110);
  EXPECT_EQ(nano.vae.groups.at(TensorKind::kVaeEncoder).tensors, 86);
  const ScaleStatistics& scales = nano.trunk.scales;
  EXPECT_EQ(scales.linears, 28);
  // Codes and scales of all blocks, once each.
  EXPECT_EQ(scales.blocks * 8, nano.trunk.groups.at(TensorKind::kCodes).bytes);
  EXPECT_EQ(scales.codes.counted, scales.blocks);
  EXPECT_EQ(scales.codes.with_largest_code, scales.blocks);
  EXPECT_GT(scales.e4m3_subnormal, scales.blocks / 2);
  EXPECT_EQ(scales.e4m3_zero + scales.e4m3_nan + scales.e4m3_negative + scales.e4m3_off + scales.bf16_invalid,
            0);
  EXPECT_LT(scales.bf16_min, scales.bf16_median);
  EXPECT_LT(scales.bf16_median, scales.bf16_max);
}

// What is split falls with the ranks; what every rank holds does not.
TEST(InspectTest, EstimatesMemoryPerRank) {
  const CheckpointInspection nano = InspectNano();
  ASSERT_EQ(nano.memory.size(), 3u);
  const int64_t linears = nano.trunk.groups.at(TensorKind::kCodes).bytes +
                          nano.trunk.groups.at(TensorKind::kScalesBf16).bytes +
                          nano.trunk.groups.at(TensorKind::kBias).bytes;
  const int64_t replicated = nano.trunk.groups.at(TensorKind::kNorm).bytes +
                             nano.trunk.groups.at(TensorKind::kEmbedding).bytes +
                             nano.trunk.groups.at(TensorKind::kAdapter).bytes;
  EXPECT_EQ(nano.memory[0].trunk_bytes, linears + replicated);
  // 11 blocks split into 6 and 5.
  EXPECT_GE(nano.memory[1].trunk_bytes, linears / 2 + replicated);
  EXPECT_LE(nano.memory[1].trunk_bytes, linears * 6 / 11 + replicated);
  EXPECT_LT(nano.memory[2].trunk_bytes, nano.memory[1].trunk_bytes);
}

TEST(InspectTest, ShowsTheVisionTower) {
  const CheckpointInspection nano = InspectNano();
  ASSERT_TRUE(nano.vision.has_value());
  EXPECT_EQ(nano.vision->tensors.size(), 30u);
  EXPECT_EQ(nano.vision->groups.size(), 1u);
  EXPECT_EQ(nano.vision->groups.at(TensorKind::kVisionTower).bytes, nano.vision->bytes);
  // One rank holds all of it; on four, two hold no head.
  EXPECT_EQ(nano.memory[0].vision_bytes, nano.vision->bytes);
  EXPECT_LT(nano.memory[1].vision_bytes, nano.memory[0].vision_bytes);
  EXPECT_LT(nano.memory[2].vision_bytes, nano.memory[1].vision_bytes);
  const std::string text = Report(nano, {});
  EXPECT_THAT(text, HasSubstr("depth 2, hidden 160, heads 2 of 80, inner 48"));
  EXPECT_THAT(text, HasSubstr("full attention in 1\n"));
  ReportOptions options;
  options.json = true;
  const json parsed = json::parse(Report(nano, options));
  EXPECT_EQ(parsed["vision"]["config"]["window_cells"], 4);
  EXPECT_EQ(parsed["vision"]["tensors_in_trunk"], 0);
}

// One linear whose scales are known: [2 rows, 64 columns], 4 blocks a row.
TEST(InspectTest, CountsOddScales) {
  const auto scale_bytes = [](std::initializer_list<float> values) {
    std::string bytes;
    for (const float value : values) {
      const bf16 rounded = ToBf16(value);
      bytes.append(reinterpret_cast<const char*>(&rounded), sizeof(rounded));
    }
    return bytes;
  };
  TensorFile tensors;
  const std::string base = "language_model.model.layers.0.mlp.up_proj";
  // E4M3: 1.0, 2^-9 (subnormal), 0, NaN, -1.0, 448, 1.25 (two steps from 1.0), 2^-6 (the smallest normal).
  tensors[base + ".scales_fp8"] = {"U8", {2, 4}, std::string("\x38\x01\x00\x7f\xb8\x7e\x3a\x08", 8)};
  tensors[base + ".scales_bf16"] = {
      "BF16", {2, 4}, scale_bytes({1.0f, 0.002f, 0.0005f, 1.0f, 1.0f, 448.0f, 1.0f, -1.0f})};
  std::string codes(64, '\x07');
  codes.replace(0, 8, 8, '\x66');  // block 0 never uses code 7
  tensors[base + ".qweight"] = {"U8", {2, 32}, codes};
  tensors["stray"] = {"F32", {1}, "abcd"};
  const auto dict =
      SafetensorsFile::Create(std::make_unique<InMemoryFile>(SerializeTensors(tensors))).value();
  const auto file = InspectFile(*dict, 10);
  ASSERT_THAT(file, IsOk());
  const ScaleStatistics& s = file->scales;
  EXPECT_EQ(s.linears, 1);
  EXPECT_EQ(s.blocks, 8);
  EXPECT_EQ(s.e4m3_subnormal, 1);
  EXPECT_EQ(s.e4m3_zero, 1);
  EXPECT_EQ(s.e4m3_nan, 1);
  EXPECT_EQ(s.e4m3_negative, 1);
  EXPECT_EQ(s.e4m3_off, 3);  // NaN, -1 and 1.25 against 1
  EXPECT_EQ(s.bf16_invalid, 1);
  EXPECT_EQ(s.bf16_min, RoundToBf16(0.0005f));
  EXPECT_EQ(s.bf16_median, 1.0f);
  EXPECT_EQ(s.bf16_max, 448.0f);
  EXPECT_EQ(s.codes.counted, 7);  // the negative scale counts as none
  EXPECT_EQ(s.codes.with_largest_code, 6);
  EXPECT_EQ(file->groups.at(TensorKind::kOther).tensors, 1);
}

TEST(InspectTest, RefusesScalesThatDoNotFit) {
  TensorFile tensors;
  tensors["a.scales_bf16"] = {"BF16", {2, 2}, "12345678"};
  const auto inspect = [&] {
    return InspectFile(
               *SafetensorsFile::Create(std::make_unique<InMemoryFile>(SerializeTensors(tensors))).value(), 1)
        .status();
  };
  EXPECT_THAT(inspect(), Fails(absl::StatusCode::kNotFound, HasSubstr("'a.scales_fp8'")));
  tensors["a.scales_fp8"] = {"U8", {4}, "1234"};
  EXPECT_THAT(inspect(), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("'a.scales_fp8'")));
  tensors["a.scales_bf16"] = {"BF16", {4}, "12345678"};
  EXPECT_THAT(inspect(),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("expected BF16 [out, in / 16]")));
}

TEST(InspectTest, ReportsAsTextAndJson) {
  CheckpointInspection nano = InspectNano();
  nano.unexpected = {"model.stray"};
  const std::string text = Report(nano, {});
  EXPECT_THAT(text, HasSubstr(nano.fingerprint));
  EXPECT_THAT(text, HasSubstr("nvfp4_awq: 20, nvfp4_minmax: 8"));
  EXPECT_THAT(text, HasSubstr("1 tensors that nothing reads:\n  model.stray"));
  const json parsed = json::parse(Report(nano, {.json = true, .list_tensors = true}));
  EXPECT_EQ(parsed["fingerprint"], nano.fingerprint);
  EXPECT_EQ(parsed["config"]["intermediate_size"], 176);
  EXPECT_EQ(parsed["trunk"]["scales"]["e4m3_zero"], 0);
  EXPECT_EQ(parsed["trunk"]["list"].size(), 124u);
  EXPECT_EQ(parsed["unexpected"], json({"model.stray"}));
}

}  // namespace
}  // namespace lancet

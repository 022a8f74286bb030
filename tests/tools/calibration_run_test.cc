// Statistics of requests on the nano model against an independent recomputation from the rows that entered.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "common/activation_factors.h"
#include "common/checkpoint.h"
#include "common/mapped_file.h"
#include "common/trunk_layout.h"
#include "tests/testing/status_matchers.h"
#include "tools/calibration/calibration_sums.h"
#include "tools/calibration/rank_inputs.h"
#include "tools/requests/rank_group.h"
#include "tools/requests/request_set.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

constexpr char kQ[] = "language_model.model.layers.1.self_attn.q_proj";
constexpr char kV[] = "language_model.model.layers.1.self_attn.v_proj_moe_gen";
constexpr char kDown[] = "language_model.model.layers.0.mlp_moe_gen.down_proj";

// Keeps every row, and hands it on.
class Recorder final : public EngineTrace {
 public:
  explicit Recorder(EngineTrace* next) : next_(next) {}
  void OnLinearInput(int64_t layer, bool gen, FusedLinear linear, ConstMatrixView<bf16> x) override {
    std::vector<std::vector<float>>& rows = rows_[{layer, gen, linear}];
    for (int64_t r = 0; r < x.rows; ++r) {
      std::vector<float>& row = rows.emplace_back();
      for (int64_t c = 0; c < x.cols; ++c) row.push_back(ToFloat(x.row(r)[c]));
    }
    next_->OnLinearInput(layer, gen, linear, x);
  }
  const std::vector<std::vector<float>>& Rows(int64_t layer, bool gen, FusedLinear linear) {
    return rows_[{layer, gen, linear}];
  }

 private:
  EngineTrace* const next_;
  std::map<std::tuple<int64_t, bool, FusedLinear>, std::vector<std::vector<float>>> rows_;
};

class CalibrationRunTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    CheckpointPaths overrides;
    overrides.model_dir = LANCET_TEST_DATA "/nano";
    checkpoint_ = Checkpoint::Open(ResolveCheckpoint(overrides).value()).value().release();
    RequestSetOptions options;
    options.sampler.num_steps = 2;
    options.side = 64;
    options.max_new_tokens = 3;
    set_ = new RequestSet(LoadRequestSet(*checkpoint_, LANCET_TEST_DATA "/requests.json", options).value());
  }

  static std::string PathOf(const std::string& name) { return absl::StrCat(testing::TempDir(), "/", name); }

  // Runs the set on so many ranks; the file's path. `recorders`, unless null, get one per rank.
  static std::string Collect(int ranks, const std::string& name,
                             std::vector<std::unique_ptr<Recorder>>* recorders) {
    CalibrationSums calibration = CalibrationSums::Create(*checkpoint_, {"*.0.mlp*down_proj", kQ}).value();
    const auto inputs = RankInputs::Create(checkpoint_->config(), ranks, 2, &calibration).value();
    const auto group = RankGroup::Load(*checkpoint_, ranks, {}).value();
    std::vector<EngineTrace*> traces = inputs->traces();
    for (EngineTrace*& trace : traces) {
      if (recorders == nullptr) break;
      recorders->push_back(std::make_unique<Recorder>(trace));
      trace = recorders->back().get();
    }
    for (const SetRequest* request : set_->All()) {
      EXPECT_THAT(group->RunInPieces(request->plan, traces), IsOk());
      EXPECT_THAT(inputs->status(), IsOk());
    }
    EXPECT_THAT(calibration.Write(PathOf(name)), IsOk());
    return PathOf(name);
  }

  static void ExpectRecomputed(const LinearStatistics& got, const std::vector<std::vector<float>>& rows) {
    ASSERT_FALSE(rows.empty());
    const size_t in = rows[0].size();
    ASSERT_EQ(got.in, static_cast<int64_t>(in));
    EXPECT_EQ(got.n_tokens, static_cast<int64_t>(rows.size()));
    std::vector<float> magnitudes;
    for (size_t c = 0; c < in; ++c) {
      double sum = 0;
      float most = 0;
      for (const auto& row : rows) {
        magnitudes.push_back(std::fabs(row[c]));
        sum += magnitudes.back();
        most = std::max(most, magnitudes.back());
      }
      EXPECT_FLOAT_EQ(got.sum_abs[c], static_cast<float>(sum)) << c;
      EXPECT_EQ(got.max_abs[c], most) << c;
    }
    std::sort(magnitudes.begin(), magnitudes.end());
    for (size_t i = 0; i < kCalibrationPercentiles.size(); ++i) {
      const double rank =
          std::ceil(kCalibrationPercentiles[i] / 100.0 * static_cast<double>(magnitudes.size()) - 1e-6);
      EXPECT_EQ(got.percentiles[i], magnitudes[static_cast<size_t>(rank) - 1]) << kCalibrationPercentiles[i];
    }
    if (got.xtx.empty()) return;
    for (size_t i = 0; i < in; i += 7) {
      for (size_t j = 0; j < in; j += 5) {
        double sum = 0;
        double scale = 0;
        for (const auto& row : rows) {
          sum += static_cast<double>(row[i]) * row[j];
          scale += std::fabs(static_cast<double>(row[i]) * row[j]);
        }
        EXPECT_NEAR(got.xtx[i * in + j], sum, 1e-5 * scale + 1e-30) << i << " " << j;
        EXPECT_EQ(got.xtx[i * in + j], got.xtx[j * in + i]);
      }
    }
  }

  static Checkpoint* checkpoint_;
  static RequestSet* set_;
};

Checkpoint* CalibrationRunTest::checkpoint_ = nullptr;
RequestSet* CalibrationRunTest::set_ = nullptr;

TEST_F(CalibrationRunTest, AgreesWithARecomputation) {
  std::vector<std::unique_ptr<Recorder>> recorders;
  const auto file = CalibrationFile::Open(Collect(1, "one.safetensors", &recorders));
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->linears().size(), TrunkLinears(checkpoint_->config()).size());
  EXPECT_EQ((*file)->fingerprint(), checkpoint_->fingerprint());
  EXPECT_EQ((*file)->trunk(), "nvfp4");
  Recorder& rows = *recorders[0];
  ExpectRecomputed((*file)->Get(kQ).value(), rows.Rows(1, false, FusedLinear::kQkv));
  ExpectRecomputed((*file)->Get(kV).value(), rows.Rows(1, true, FusedLinear::kQkv));
  ExpectRecomputed((*file)->Get(kDown).value(), rows.Rows(0, true, FusedLinear::kDown));
  ExpectRecomputed((*file)->Get("language_model.model.layers.1.self_attn.o_proj").value(),
                   rows.Rows(1, false, FusedLinear::kO));
  ExpectRecomputed((*file)->Get("language_model.model.layers.0.mlp.up_proj").value(),
                   rows.Rows(0, false, FusedLinear::kGateUp));
  EXPECT_FALSE((*file)->Get(kQ)->xtx.empty());
  EXPECT_TRUE((*file)->Get(kV)->xtx.empty());
}

// Three ranks split 4 heads and 11 blocks of the inner width unevenly.
TEST_F(CalibrationRunTest, PutsRanksTogether) {
  const auto one = CalibrationFile::Open(Collect(1, "one.safetensors", nullptr));
  std::vector<std::unique_ptr<Recorder>> recorders;
  const auto three = CalibrationFile::Open(Collect(3, "three.safetensors", &recorders));
  ASSERT_THAT(three, IsOk());
  ASSERT_EQ((*one)->linears(), (*three)->linears());
  // Of the same rows, columns side by side.
  for (const auto& [name, layer, gen, linear] :
       {std::tuple<std::string, int64_t, bool, FusedLinear>{kDown, 0, true, FusedLinear::kDown},
        {"language_model.model.layers.1.self_attn.o_proj", 1, false, FusedLinear::kO}}) {
    std::vector<std::vector<float>> whole = recorders[0]->Rows(layer, gen, linear);
    for (size_t rank = 1; rank < 3; ++rank) {
      const auto& part = recorders[rank]->Rows(layer, gen, linear);
      ASSERT_EQ(part.size(), whole.size());
      for (size_t r = 0; r < whole.size(); ++r)
        whole[r].insert(whole[r].end(), part[r].begin(), part[r].end());
    }
    ExpectRecomputed((*three)->Get(name).value(), whole);
  }
  for (const std::string& linear : (*one)->linears()) {
    const LinearStatistics a = (*one)->Get(linear).value();
    const LinearStatistics b = (*three)->Get(linear).value();
    EXPECT_EQ(a.n_tokens, b.n_tokens) << linear;
    double off = 0;
    double norm = 0;
    for (int64_t c = 0; c < a.in; ++c) {
      off += std::pow(a.sum_abs[c] - b.sum_abs[c], 2);
      norm += std::pow(a.sum_abs[c], 2);
    }
    // Ranks add partial sums in another order, which bf16 shows.
    EXPECT_LT(std::sqrt(off / norm), 0.02) << linear;
  }
}

TEST_F(CalibrationRunTest, MergesRuns) {
  const std::string path = Collect(1, "one.safetensors", nullptr);
  const auto file = CalibrationFile::Open(path).value();
  CalibrationSums sum = CalibrationSums::Create(*file).value();
  ASSERT_THAT(sum.Add(*file), IsOk());
  ASSERT_THAT(sum.Write(PathOf("sum.safetensors")), IsOk());
  const auto merged = CalibrationFile::Open(PathOf("sum.safetensors")).value();
  EXPECT_EQ(merged->fingerprint(), file->fingerprint());
  for (const std::string& linear : file->linears()) {
    const LinearStatistics once = file->Get(linear).value();
    const LinearStatistics twice = merged->Get(linear).value();
    EXPECT_EQ(twice.n_tokens, 2 * once.n_tokens);
    EXPECT_EQ(twice.percentiles, once.percentiles) << linear;
    EXPECT_EQ(twice.max_abs, once.max_abs) << linear;
    ASSERT_EQ(twice.xtx.size(), once.xtx.size());
    for (int64_t c = 0; c < once.in; ++c) EXPECT_EQ(twice.sum_abs[c], 2 * once.sum_abs[c]);
    for (size_t i = 0; i < once.xtx.size(); ++i) ASSERT_EQ(twice.xtx[i], 2 * once.xtx[i]);
  }
}

TEST_F(CalibrationRunTest, RefusesAnotherCheckpointsStatistics) {
  CheckpointPaths overrides;
  overrides.model_dir = LANCET_DEMO_MODEL;
  const auto demo = Checkpoint::Open(ResolveCheckpoint(overrides).value()).value();
  const auto file = CalibrationFile::Open(Collect(1, "one.safetensors", nullptr)).value();
  CalibrationSums other = CalibrationSums::Create(*demo, {}).value();
  EXPECT_THAT(other.Add(*file),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr(checkpoint_->fingerprint())));
  EXPECT_THAT(ActivationFactorsJson(*demo, *file, 100).status(),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr(demo->fingerprint())));
  EXPECT_THAT(other.Write(PathOf("none.safetensors")),
              Fails(absl::StatusCode::kFailedPrecondition, HasSubstr("no Linear saw a row")));
  EXPECT_THAT(CalibrationSums::Create(*demo, {"*.self_attention"}).status(),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("'*.self_attention' matches no Linear")));
}

TEST_F(CalibrationRunTest, WritesFactorsThatAWorkerReads) {
  const auto file = CalibrationFile::Open(Collect(1, "one.safetensors", nullptr)).value();
  const auto text = ActivationFactorsJson(*checkpoint_, *file, 100);
  ASSERT_THAT(text, IsOk());
  std::vector<std::string> linears;
  for (const TrunkLinear& linear : TrunkLinears(checkpoint_->config())) linears.push_back(linear.base);
  const auto factors = ParseActivationFactors(*text, "factors", checkpoint_->fingerprint(), linears);
  ASSERT_THAT(factors, IsOk());
  const auto largest = file->Get(kDown)->max_abs;
  EXPECT_FLOAT_EQ(factors->at(kDown), *std::max_element(largest.begin(), largest.end()) / 2688.0f);
  EXPECT_THAT(ActivationFactorsJson(*checkpoint_, *file, 50).status(),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("percentile is 50")));
}

TEST(ProductStatisticsTest, RefusesWhatIsNoNumber) {
  ThreadPool pool(1);
  ProductStatistics statistics(2, false);
  const bf16 good[] = {ToBf16(1.0f), ToBf16(-2.0f)};
  const bf16 bad[] = {ToBf16(1.0f), ToBf16(NAN)};
  EXPECT_THAT(statistics.Add(ConstMatrixView<bf16>(good, 1, 2), pool), IsOk());
  EXPECT_THAT(statistics.Add(ConstMatrixView<bf16>(bad, 1, 2), pool),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("channel 1 is not a finite number")));
  EXPECT_THAT(statistics.Add(ConstMatrixView<bf16>(good, 2, 1), pool),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("rows of 1 channels; expected 2")));
  EXPECT_EQ(statistics.n_tokens(), 1);
  EXPECT_THAT(statistics.sum_abs(), ::testing::ElementsAre(1.0, 2.0));
  EXPECT_THAT(statistics.Percentiles(), ::testing::ElementsAre(2.0f, 2.0f, 2.0f, 2.0f));
}

}  // namespace
}  // namespace lancet

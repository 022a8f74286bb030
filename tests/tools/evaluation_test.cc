#include "tools/eval/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/checkpoint.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"
#include "tools/eval/picture_metrics.h"
#include "tools/eval/scene_judge.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

RgbImage Flat(int32_t width, int32_t height, uint8_t level) {
  return {width, height, std::vector<uint8_t>(size_t{3} * width * height, level)};
}

TEST(PictureMetricsTest, Psnr) {
  EXPECT_EQ(Psnr(Flat(4, 4, 9), Flat(4, 4, 9)).value(), kEqualPsnr);
  // A difference of 10 levels everywhere: 20 log10(25.5).
  EXPECT_NEAR(Psnr(Flat(4, 4, 10), Flat(4, 4, 20)).value(), 28.1308, 1e-4);
  EXPECT_THAT(Psnr(Flat(4, 4, 0), Flat(4, 5, 0)).status(),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("4 x 4 and 4 x 5")));
  EXPECT_FALSE(Psnr(RgbImage{}, RgbImage{}).ok());
}

TEST(PictureMetricsTest, Ssim) {
  EXPECT_NEAR(Ssim(Flat(11, 12, 100), Flat(11, 12, 100)).value(), 1.0, 1e-12);
  // Flat pictures differ in brightness alone: (2 a b + C1) / (a^2 + b^2 + C1).
  const double c1 = 6.5025;
  EXPECT_NEAR(Ssim(Flat(16, 16, 100), Flat(16, 16, 150)).value(), (2 * 15000.0 + c1) / (10000 + 22500 + c1),
              1e-6);
  // Stripes against their negative: structure turned round.
  RgbImage stripes = Flat(32, 32, 0);
  RgbImage negative = stripes;
  for (size_t i = 0; i < stripes.pixels.size(); ++i) {
    stripes.pixels[i] = i / 3 % 2 == 0 ? 28 : 228;
    negative.pixels[i] = static_cast<uint8_t>(256 - stripes.pixels[i]);
  }
  EXPECT_LT(Ssim(stripes, negative).value(), -0.9);
  EXPECT_FALSE(Ssim(Flat(10, 16, 1), Flat(10, 16, 1)).ok());
}

TEST(PictureMetricsTest, RelativeError) {
  const std::vector<bf16> ones(4, ToBf16(1.0f));
  EXPECT_NEAR(RelativeError(std::vector<bf16>(4, ToBf16(1.5f)), ones).value(), 0.5, 1e-12);
  EXPECT_FALSE(RelativeError(ones, std::vector<bf16>(3, ToBf16(1.0f))).ok());
  EXPECT_FALSE(RelativeError(ones, std::vector<bf16>(4, ToBf16(0.0f))).ok());
}

class SceneJudgeTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    CheckpointPaths overrides;
    overrides.model_dir = LANCET_DEMO_MODEL;
    const auto checkpoint = Checkpoint::Open(ResolveCheckpoint(overrides).value()).value();
    set_ = new RequestSet(LoadRequestSet(*checkpoint, LANCET_DEMO_MODEL "/expected", {}).value());
    judge_ = new SceneJudge(SceneJudge::Open(LANCET_SOURCE_DIR "/tools/eval/demo_judge.json").value());
  }
  static RequestSet* set_;
  static SceneJudge* judge_;
};

RequestSet* SceneJudgeTest::set_ = nullptr;
SceneJudge* SceneJudgeTest::judge_ = nullptr;

TEST_F(SceneJudgeTest, FindsIdealPicturesRight) {
  int judged = 0;
  for (const auto* requests : {&set_->pictures, &set_->edits}) {
    for (const SetRequest& request : *requests) {
      const auto verdict = judge_->Judge(*request.ideal, *request.scene);
      ASSERT_THAT(verdict, IsOk());
      EXPECT_TRUE(verdict->right) << request.text << ": " << absl::StrJoin(verdict->seen, ", ") << " on "
                                  << verdict->background << ", stray " << verdict->stray;
      EXPECT_EQ(verdict->background, request.scene->background);
      EXPECT_LT(verdict->stray, 0.001);
      ++judged;
    }
  }
  EXPECT_GE(judged, 20);
}

TEST_F(SceneJudgeTest, TellsWhatIsWrong) {
  const SetRequest& request = set_->pictures[0];
  ASSERT_GE(request.scene->objects.size(), 1u);
  Scene other = *request.scene;
  other.objects[0].name = "snake";
  const auto object = judge_->Judge(*request.ideal, other);
  ASSERT_THAT(object, IsOk());
  EXPECT_FALSE(object->right);
  EXPECT_EQ(object->seen[0], request.scene->objects[0].name);
  // Paint where nothing was asked for.
  Scene fewer = *request.scene;
  fewer.objects.pop_back();
  const auto stray = judge_->Judge(*request.ideal, fewer);
  ASSERT_THAT(stray, IsOk());
  EXPECT_GT(stray->stray, 0.03);
  EXPECT_FALSE(stray->right);
  Scene coloured = *request.scene;
  coloured.background = "purple";
  const auto background = judge_->Judge(*request.ideal, coloured);
  ASSERT_THAT(background, IsOk());
  EXPECT_EQ(background->background, request.scene->background);
  EXPECT_FALSE(background->right);
}

TEST_F(SceneJudgeTest, RefusesWhatItDoesNotKnow) {
  const RgbImage picture = Flat(256, 256, 255);
  const auto refused = [&](const Scene& scene, const RgbImage& of) {
    return judge_->Judge(of, scene).status();
  };
  const auto invalid = [](const char* what) {
    return Fails(absl::StatusCode::kInvalidArgument, HasSubstr(what));
  };
  EXPECT_THAT(refused({{{"teapot", "behind"}}, "white"}, picture), invalid("unknown place 'behind'"));
  EXPECT_THAT(refused({{{"gramophone of gold", "top"}}, "white"}, picture), invalid("unknown object"));
  EXPECT_THAT(refused({{{"teapot", "top"}}, "beige"}, picture), invalid("unknown background 'beige'"));
  EXPECT_THAT(refused({{{"teapot", "top", true}}, "white"}, picture), invalid("no room for 208"));
  EXPECT_THAT(refused({{{"teapot", "top"}}, "white"}, Flat(64, 64, 255)), invalid("no room for 112"));
}

TEST_F(SceneJudgeTest, RefusesOddFiles) {
  const auto open = [](const std::string& text) {
    const std::string path = testing::TempDir() + "/judge/judge.json";
    WriteFile(path, text);
    return SceneJudge::Open(path).status();
  };
  EXPECT_THAT(SceneJudge::Open("/nonexistent.json").status(),
              Fails(absl::StatusCode::kNotFound, HasSubstr("nonexistent")));
  EXPECT_THAT(open("[]"), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("judge.json")));
  EXPECT_THAT(open(R"({"version": 2})"), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("version")));
  EXPECT_THAT(open(R"({"version": 1, "side": 28, "columns": 1, "small_px": 1, "large_px": 1, "edge_px": 1,
                       "places": {"top": [1, 3]}})"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("places")));
}

// Scores from outputs made by hand; the set's requests say what is right.
TEST_F(SceneJudgeTest, ScoresASet) {
  SetOutputs ideal;
  for (const SetRequest& request : set_->pictures) ideal.pictures.push_back({*request.ideal, {ToBf16(1.0f)}});
  for (const SetRequest& request : set_->edits) ideal.edits.push_back({*request.ideal, {ToBf16(1.0f)}});
  for (const SetRequest& request : set_->questions) ideal.answers.push_back(*request.right_answer);
  SetOutputs worse = ideal;
  worse.pictures[0] = {Flat(256, 256, 0), {ToBf16(1.5f)}};
  worse.answers[0] = "a fish";
  const auto scores = ScoreSet(*set_, worse, ideal, judge_);
  ASSERT_THAT(scores, IsOk());
  const int pictures = static_cast<int>(set_->pictures.size());
  const int questions = static_cast<int>(set_->questions.size());
  EXPECT_EQ(scores->pictures.judged, pictures);
  EXPECT_EQ(scores->pictures.right, pictures - 1);
  EXPECT_NEAR(*scores->pictures.latents, 0.5 / pictures, 1e-9);
  EXPECT_LT(*scores->pictures.least_psnr, 20);
  EXPECT_EQ(scores->edits.right, scores->edits.judged);
  EXPECT_EQ(*scores->edits.psnr, kEqualPsnr);
  EXPECT_EQ(scores->answers_right, questions - 1);
  EXPECT_EQ(scores->answers_same, questions - 1);
  const std::string table = ScoreTable({{"worse", *scores}});
  EXPECT_THAT(table, HasSubstr(absl::StrCat("| worse | ", pictures - 1, " of ", pictures, " |")));
  EXPECT_THAT(table, HasSubstr("| pictures: right | dB to the ideal |"));
  const auto without = ScoreSet(*set_, worse, ideal, nullptr);
  ASSERT_THAT(without, IsOk());
  EXPECT_THAT(ScoreTable({{"worse", *without}}), HasSubstr("|  | pictures: dB to the ideal |"));
}

class RequestSetTest : public ::testing::Test {
 protected:
  absl::Status Refused(const std::string& text) {
    const std::string path = testing::TempDir() + "/sets/set.json";
    WriteFile(path, text);
    return LoadRequestSet(*checkpoint_, path, options_).status();
  }
  static std::unique_ptr<Checkpoint> OpenNano() {
    CheckpointPaths overrides;
    overrides.model_dir = LANCET_TEST_DATA "/nano";
    return Checkpoint::Open(ResolveCheckpoint(overrides).value()).value();
  }
  const std::unique_ptr<Checkpoint> checkpoint_ = OpenNano();
  RequestSetOptions options_;
};

TEST_F(RequestSetTest, ReadsOneFile) {
  options_.side = 64;
  options_.sampler.num_steps = 3;
  const auto set = LoadRequestSet(*checkpoint_, LANCET_TEST_DATA "/requests.json", options_);
  ASSERT_THAT(set, IsOk());
  ASSERT_EQ(set->All().size(), 3u);
  EXPECT_EQ(set->pictures[0].plan.seed, 7u);
  EXPECT_EQ(set->pictures[0].plan.target.num_latents(), 16);
  EXPECT_EQ(set->pictures[0].plan.sampler.num_steps, 3);
  EXPECT_EQ(set->edits[0].kind, "background");
  EXPECT_TRUE(set->edits[0].plan.condition_image.has_value());
  EXPECT_FALSE(set->questions[0].right_answer.has_value());
  EXPECT_EQ(set->questions[0].plan.answer->max_new_tokens, 64);
}

TEST_F(RequestSetTest, NamesWhatIsOdd) {
  const auto invalid = [](const char* what) {
    return Fails(absl::StatusCode::kInvalidArgument, HasSubstr(what));
  };
  EXPECT_THAT(Refused("[]"), invalid("set.json"));
  EXPECT_THAT(Refused("{}"), invalid("has no requests"));
  EXPECT_THAT(Refused(R"({"prompts": {}})"), invalid("prompts is not a list"));
  EXPECT_THAT(Refused(R"({"prompts": [{"prompt": "a"}, {}]})"), invalid("prompts 1: has no string prompt"));
  EXPECT_THAT(Refused(R"({"prompts": [{"prompt": "a", "width": 20}]})"), invalid("expected multiples of 16"));
  EXPECT_THAT(Refused(R"({"prompts": [{"prompt": "a", "width": 16000}]})"), invalid("width is '16000'"));
  EXPECT_THAT(Refused(R"({"prompts": [{"prompt": "a", "objects": [{"name": "b"}], "background": "white"}]})"),
              invalid("objects: has no string place"));
  EXPECT_THAT(Refused(R"({"questions": [{"question": "a", "picture": "set.json"}]})"), invalid("'set.json'"));
  EXPECT_THAT(Refused(R"({"questions": [{"question": "a", "picture": "b.png"}]})"),
              Fails(absl::StatusCode::kNotFound, HasSubstr("b.png")));
}

}  // namespace
}  // namespace lancet

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "coordinator/request/admission.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

ModelCard Card() {
  ModelCard card;
  card.default_size = {256, 320};
  card.sizes = {{256, 320}, {256, 256}};
  return card;
}

TEST(AdmissionTest, FillsInTheDefaults) {
  GenerateRequest request;
  request.prompt = "\t a cat\n";
  const AdmittedRequest admitted = Admit(request, Limits{}, Card(), 77).value();
  EXPECT_EQ(admitted.params.prompt, "a cat");
  EXPECT_EQ(admitted.params.seed, 77u);
  EXPECT_EQ(admitted.params.width, 256);
  EXPECT_EQ(admitted.params.height, 320);
  EXPECT_EQ(admitted.params.num_latents(), 16 * 20);
  EXPECT_EQ(admitted.params.sampler.num_steps, 30);
  EXPECT_EQ(admitted.params.sampler.guidance_scale, 4.0f);
  EXPECT_EQ(admitted.params.sampler.timestep_shift, 3.5f);
  EXPECT_EQ(admitted.params.sampler.guidance_start, 0.4f);
  EXPECT_EQ(admitted.params.sampler.guidance_end, 1.0f);
  EXPECT_FALSE(admitted.preview.has_value());
  EXPECT_EQ(admitted.output_format, ImageFormat::kPng);
  EXPECT_EQ(admitted.priority, Priority::kNormal);
  EXPECT_THAT(admitted.warnings, IsEmpty());
}

TEST(AdmissionTest, KeepsWhatIsSet) {
  GenerateRequest request;
  request.seed = 0;
  request.num_inference_steps = 1000;
  request.guidance_scale = 0.0f;
  request.timestep_shift = 0.01f;
  request.guidance_interval = GuidanceInterval{0.0f, 0.0f};
  request.width = 2048;
  request.height = 16;
  request.preview = PreviewOptions{.every_n_steps = 3, .method = 2, .max_side = 16, .format = 3};
  request.output_format = 2;
  request.priority = 3;
  const AdmittedRequest admitted = Admit(request, Limits{}, ModelCard{}, 77).value();
  EXPECT_EQ(admitted.params.prompt, "");
  EXPECT_EQ(admitted.params.seed, 0u);
  EXPECT_EQ(admitted.params.sampler.num_steps, 1000);
  EXPECT_EQ(admitted.params.sampler.guidance_scale, 0.0f);
  EXPECT_EQ(admitted.params.sampler.guidance_end, 0.0f);
  EXPECT_EQ(admitted.params.width, 2048);
  ASSERT_TRUE(admitted.preview.has_value());
  EXPECT_EQ(admitted.preview->every_n_steps, 3);
  EXPECT_EQ(admitted.preview->method, PreviewMethod::kVae);
  EXPECT_EQ(admitted.preview->max_side, 16);
  EXPECT_EQ(admitted.preview->format, ImageFormat::kWebp);
  EXPECT_EQ(admitted.output_format, ImageFormat::kJpeg);
  EXPECT_EQ(admitted.priority, Priority::kHigh);
  EXPECT_THAT(admitted.warnings, IsEmpty());
}

TEST(AdmissionTest, PreviewDefaults) {
  GenerateRequest request;
  request.preview = PreviewOptions{.every_n_steps = 1};
  const AdmittedRequest admitted = Admit(request, Limits{}, Card(), 1).value();
  ASSERT_TRUE(admitted.preview.has_value());
  EXPECT_EQ(admitted.preview->method, PreviewMethod::kLatentRgb);
  EXPECT_EQ(admitted.preview->max_side, 256);
  EXPECT_EQ(admitted.preview->format, ImageFormat::kJpeg);
}

TEST(AdmissionTest, WarnsOfASizeTheCheckpointWasNotMadeFor) {
  GenerateRequest request;
  request.width = 320;
  request.height = 256;
  const AdmittedRequest admitted = Admit(request, Limits{}, Card(), 1).value();
  EXPECT_THAT(admitted.warnings, ElementsAre("size 320x256 is not one this checkpoint was made for (256x320, "
                                             "256x256); the picture may suffer"));
}

TEST(AdmissionTest, EachViolationNamesFieldValueAndLimit) {
  const auto size = [](int32_t width, int32_t height) {
    return [=](GenerateRequest& r) {
      r.width = width;
      r.height = height;
    };
  };
  const auto preview = [](PreviewOptions options) {
    return [=](GenerateRequest& r) { r.preview = options; };
  };
  const struct {
    std::function<void(GenerateRequest&)> spoil;
    const char* message;
  } cases[] = {
      {[](GenerateRequest& r) { r.prompt.assign(100'000, 'x'); },
       "prompt: 100000 bytes are more than the limit of 16384"},
      {[](GenerateRequest& r) { r.prompt = "ab\xff"; }, "prompt: not valid UTF-8 at byte 2 of 3"},
      {[](GenerateRequest& r) { r.num_inference_steps = 0; }, "num_inference_steps: 0 is not from 1 to 1000"},
      {[](GenerateRequest& r) { r.num_inference_steps = -1; },
       "num_inference_steps: -1 is not from 1 to 1000"},
      {[](GenerateRequest& r) { r.num_inference_steps = 10001; },
       "num_inference_steps: 10001 is not from 1 to 1000"},
      {[](GenerateRequest& r) { r.guidance_scale = kNan; }, "guidance_scale: nan is not from 0 to 100"},
      {[](GenerateRequest& r) { r.guidance_scale = kInf; }, "guidance_scale: inf is not from 0 to 100"},
      {[](GenerateRequest& r) { r.guidance_scale = -0.5f; }, "guidance_scale: -0.5 is not from 0 to 100"},
      {[](GenerateRequest& r) { r.guidance_scale = 100.5f; }, "guidance_scale: 100.5 is not from 0 to 100"},
      {[](GenerateRequest& r) { r.timestep_shift = 0.0f; }, "timestep_shift: 0 is not from 0.01 to 100"},
      {[](GenerateRequest& r) { r.timestep_shift = 101.0f; }, "timestep_shift: 101 is not from 0.01 to 100"},
      {[](GenerateRequest& r) { r.timestep_shift = kNan; }, "timestep_shift: nan is not from 0.01 to 100"},
      {[](GenerateRequest& r) {
         r.guidance_interval = GuidanceInterval{0.8f, 0.2f};
       },
       "guidance_interval: start 0.8 is above end 0.2"},
      {[](GenerateRequest& r) {
         r.guidance_interval = GuidanceInterval{kNan, 1.0f};
       },
       "guidance_interval.start: nan is not from 0 to 1"},
      {[](GenerateRequest& r) {
         r.guidance_interval = GuidanceInterval{0.0f, kNan};
       },
       "guidance_interval.end: nan is not from 0 to 1"},
      {[](GenerateRequest& r) {
         r.guidance_interval = GuidanceInterval{-0.1f, 1.0f};
       },
       "guidance_interval.start: -0.1 is not from 0 to 1"},
      {[](GenerateRequest& r) {
         r.guidance_interval = GuidanceInterval{0.1f, 1.5f};
       },
       "guidance_interval.end: 1.5 is not from 0 to 1"},
      {size(0, 256), "width: 0 is not from 16 to 2048"},
      {size(15, 256), "width: 15 is not from 16 to 2048"},
      {size(17, 256), "width: 17 is not a multiple of 16 (16 to 2048)"},
      {size(256, 17), "height: 17 is not a multiple of 16 (16 to 2048)"},
      {size(100'000, 256), "width: 100000 is not from 16 to 2048"},
      {size(256, -16), "height: -16 is not from 16 to 2048"},
      {size(2048, 1024), "width, height: 2048 x 1024 = 2097152 pixels are more than the limit of 1048576"},
      {[](GenerateRequest& r) { r.width = 256; }, "height: not set, but width is 256; set both or neither"},
      {[](GenerateRequest& r) { r.height = 256; }, "width: not set, but height is 256; set both or neither"},
      {preview({.every_n_steps = 0}), "preview.every_n_steps: 0 is not from 1 to 1000"},
      {preview({.every_n_steps = 1001}), "preview.every_n_steps: 1001 is not from 1 to 1000"},
      {preview({.every_n_steps = 1, .method = 3}), "preview.method: 3 is not a known value (0 to 2)"},
      {preview({.every_n_steps = 1, .method = -1}), "preview.method: -1 is not a known value (0 to 2)"},
      {preview({.every_n_steps = 1, .max_side = 15}), "preview.max_side: 15 is not from 16 to 4096"},
      {preview({.every_n_steps = 1, .max_side = 4097}), "preview.max_side: 4097 is not from 16 to 4096"},
      {preview({.every_n_steps = 1, .format = 4}), "preview.format: 4 is not a known value (0 to 3)"},
      {[](GenerateRequest& r) { r.output_format = 99; }, "output_format: 99 is not a known value (0 to 3)"},
      {[](GenerateRequest& r) { r.priority = 4; }, "priority: 4 is not a known value (0 to 3)"},
  };
  for (const auto& c : cases) {
    GenerateRequest request;
    request.prompt = "a cat";
    c.spoil(request);
    const auto admitted = Admit(request, Limits{}, Card(), 1);
    EXPECT_EQ(admitted.status().code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_EQ(admitted.status().message(), c.message);
  }
}

TEST(AdmissionTest, LimitsAreConfigurable) {
  Limits limits;
  limits.max_steps = 10;
  limits.max_prompt_bytes = 3;
  limits.max_side = 64;
  limits.max_pixels = 64 * 32;
  GenerateRequest request;
  request.num_inference_steps = 10;
  request.prompt = "abc";
  request.width = 64;
  request.height = 32;
  EXPECT_TRUE(Admit(request, limits, Card(), 1).ok());
  request.height = 48;
  EXPECT_THAT(Admit(request, limits, Card(), 1).status().message(), HasSubstr("2048"));
  request.width = request.height = std::nullopt;
  EXPECT_THAT(Admit(request, limits, Card(), 1).status().message(), HasSubstr("width: 256"));
}

}  // namespace
}  // namespace lancet

// What a model makes of a set of requests, and how good that is: against what is right, and against what
// another model or another arithmetic makes of them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/rgb_image.h"
#include "tools/eval/scene_judge.h"
#include "tools/requests/rank_group.h"
#include "tools/requests/request_set.h"

namespace lancet {

struct DrawnPicture {
  RgbImage image;
  std::vector<bf16> latents;  // after the last step
};

struct SetOutputs {
  std::vector<DrawnPicture> pictures, edits;
  std::vector<std::string> answers;
};

// Runs the whole set. `progress` is called after each request.
absl::StatusOr<SetOutputs> RunSet(RankGroup& group, const RequestSet& set,
                                  const std::function<void(const SetRequest&)>& progress);

// Of requests that draw. Means over those to which a figure applies; no value where it applies to none.
struct DrawnScores {
  std::optional<double> ideal_psnr;  // to the ideal picture, dB
  std::optional<double> psnr;        // to the reference's picture, dB
  std::optional<double> least_psnr;  // of those, the least
  std::optional<double> ssim;        // to the reference's picture
  std::optional<double> latents;     // ||latents - the reference's|| / ||the reference's||
  int right = 0;                     // scenes that the judge found right
  int judged = 0;
};

struct SetScores {
  DrawnScores pictures, edits;
  int answers = 0;
  int answers_same = 0;   // as the reference's, character by character
  int answers_right = 0;  // of
  int answers_known = 0;
};

// `judge` may be null. InvalidArgument names a request whose scene the judge does not know.
absl::StatusOr<SetScores> ScoreSet(const RequestSet& set, const SetOutputs& outputs,
                                   const SetOutputs& reference, const SceneJudge* judge);

// A Markdown table with a line for each name. Columns in which no line has a figure are left out.
std::string ScoreTable(const std::vector<std::pair<std::string, SetScores>>& lines);

}  // namespace lancet

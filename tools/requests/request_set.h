// Sets of requests in files: pictures to draw, edits and questions, with what is right where that is known.
// For tools that calibrate or judge a model on them.
//
// A folder with any of these files, or one file {"prompts": [...], "edits": [...], "questions": [...]} of the
// same lists. Pictures are files named relative to it. Keys in brackets may be left out; others are ignored.
//   prompts.json    [{"prompt", ["picture": the ideal], ["width", "height"], ["seed"], ["objects",
//   "background"]}, ...] edits.json      [{"instruction", "source": the picture to edit, ["picture"],
//   ["seed"], ["kind"],
//                     ["objects", "background"]}, ...]
//   questions.json  [{"question", "picture": what is asked about, ["right_answer"]}, ...]
// objects: [{"name", "place", ["large"]}, ...], the scene that the picture drawn should show
// (tools/eval/scene_judge.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/checkpoint.h"
#include "common/request_plan.h"
#include "common/rgb_image.h"
#include "coordinator/request/plan_builder.h"

namespace lancet {

struct SceneObject {
  std::string name;
  std::string place;
  bool large = false;
};
struct Scene {
  std::vector<SceneObject> objects;
  std::string background;
};

struct SetRequest {
  RequestPlan plan;
  std::string text;                         // prompt, instruction or question
  std::string kind;                         // of an edit; may be empty
  std::optional<RgbImage> ideal;            // of a request that draws
  std::optional<Scene> scene;               // of a request that draws
  std::optional<std::string> right_answer;  // of a question
};

struct RequestSet {
  std::unique_ptr<PlanBuilder> builder;
  std::vector<SetRequest> pictures, edits, questions;

  // All of them, in this order.
  std::vector<const SetRequest*> All() const;
};

struct RequestSetOptions {
  size_t most = 1000;  // of each kind, 1 to 1000
  SamplerParams sampler;
  uint64_t seed = 42;  // of entries that name none
  int32_t max_new_tokens = 64;
  // Side in pixels of the area that pictures of edits and questions are brought to, a multiple of 16 from 64
  // to 1024, and of pictures drawn whose entry names no size; 0: that of the checkpoint's default size.
  int32_t side = 0;
};

// Reads the set and builds its plans, with request ids from 1 on. NotFound or InvalidArgument names file and
// entry; a set without requests is InvalidArgument. Edits and questions are left out if the checkpoint has no
// vision tower.
absl::StatusOr<RequestSet> LoadRequestSet(const Checkpoint& checkpoint, const std::string& path,
                                          const RequestSetOptions& options);

}  // namespace lancet

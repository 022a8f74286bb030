#include "tools/golden/golden_against_cpu.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/vision_config.h"
#include "coordinator/request/plan_builder.h"
#include "tools/golden/golden_plan.h"
#include "tools/golden/golden_recorder.h"
#include "worker/engine/start_noise.h"

namespace lancet {
namespace {

// Keeps the CPU's part at seconds.
constexpr int64_t kMaxLatents = 400;
constexpr int64_t kMaxCells = 144;
constexpr int32_t kAnswerTokens = 6;

constexpr const char* kTasks[] = {"t2i", "image_edit", "x2t_image"};

class Drawer {
 public:
  explicit Drawer(uint64_t seed) : random_(seed) {}

  // From low to high. The standard's distributions differ between libraries; the generator does not.
  int64_t Number(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random_() % static_cast<uint64_t>(high - low + 1));
  }
  // Sides, in units, of a rectangle of up to `area`: any shape.
  std::pair<int64_t, int64_t> Sides(int64_t area) {
    const int64_t first = Number(1, std::min<int64_t>(area, 40));
    return {first, Number(1, std::max<int64_t>(1, std::min<int64_t>(area / first, 40)))};
  }
  // Bands of colour with noise.
  RgbImage Picture(int64_t width, int64_t height) {
    RgbImage image{static_cast<int32_t>(width), static_cast<int32_t>(height), {}};
    const int64_t slant = Number(1, 7);
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        for (int64_t c = 0; c < 3; ++c) {
          image.pixels.push_back(static_cast<uint8_t>((x * slant + y * (c + 1) + Number(0, 40)) % 256));
        }
      }
    }
    return image;
  }
  std::string Words() {
    constexpr const char* kWords[] = {"a",   "red",    "fox",   "on",  "the",
                                      "old", "bridge", "under", "two", "moons"};
    std::string text = "draw";
    for (int64_t n = Number(1, 24); n > 0; --n) absl::StrAppend(&text, " ", kWords[Number(0, 9)]);
    return text;
  }

 private:
  std::mt19937_64 random_;
};

struct Model {
  std::string case_name;  // a golden of the task
  nlohmann::json golden;
  std::unique_ptr<StateDict> tensors;
};

absl::StatusOr<Model> FindGolden(const GoldenContext& context, const std::string& task) {
  for (const std::string& name : context.folder.cases()) {
    if (!context.folder.Has(absl::StrCat(name, ".json"))) continue;
    LANCET_ASSIGN_OR_RETURN(nlohmann::json json, context.folder.Json(name));
    if (!json.is_object() || json.value("task", nlohmann::json()) != task) continue;
    Model model{name, std::move(json), nullptr};
    LANCET_ASSIGN_OR_RETURN(model.tensors, context.folder.Tensors(name));
    return model;
  }
  return absl::NotFoundError(absl::StrCat("no golden of task ", task, " to measure by"));
}

struct Request {
  std::string name;
  RequestPlan plan;
};

absl::StatusOr<Request> DrawRequest(const PlanBuilder& builder, const std::string& task,
                                    const nlohmann::json& golden, Drawer& drawer) {
  const SamplerParams sampler = GoldenSampler(golden);
  if (task == "t2i") {
    const auto [rows, cols] = drawer.Sides(kMaxLatents);
    GenerateParams params;
    params.prompt = drawer.Words();
    params.seed = static_cast<uint64_t>(drawer.Number(0, 1 << 30));
    params.sampler = sampler;
    params.height = static_cast<int32_t>(rows * kPixelsPerLatent);
    params.width = static_cast<int32_t>(cols * kPixelsPerLatent);
    LANCET_ASSIGN_OR_RETURN(RequestPlan plan, builder.Build(1, params));
    return Request{absl::StrCat("t2i ", params.width, "x", params.height), std::move(plan)};
  }
  const auto [cell_rows, cell_cols] = drawer.Sides(kMaxCells);
  RgbImage vision = drawer.Picture(cell_cols * kVisionCellSide, cell_rows * kVisionCellSide);
  const std::string tower = absl::StrCat(" tower ", vision.width, "x", vision.height);
  if (task == "image_edit") {
    const auto [rows, cols] = drawer.Sides(kMaxLatents / 2);
    EditParams params;
    params.instruction = drawer.Words();
    params.seed = static_cast<uint64_t>(drawer.Number(0, 1 << 30));
    params.sampler = sampler;
    params.sample_condition = drawer.Number(0, 1) == 1;
    RgbImage condition = drawer.Picture(cols * kPixelsPerLatent, rows * kPixelsPerLatent);
    std::string name = absl::StrCat("edit ", condition.width, "x", condition.height, tower);
    LANCET_ASSIGN_OR_RETURN(RequestPlan plan,
                            builder.BuildEdit(1, params, std::move(vision), std::move(condition)));
    return Request{std::move(name), std::move(plan)};
  }
  DescribeParams params;
  params.question = drawer.Words();
  params.max_new_tokens = kAnswerTokens;
  LANCET_ASSIGN_OR_RETURN(RequestPlan plan, builder.BuildDescribe(1, params, std::move(vision)));
  return Request{absl::StrCat("x2t", tower), std::move(plan)};
}

struct Outcome {
  std::vector<std::unique_ptr<Recorder>> recorders;  // by rank
  std::vector<int32_t> ids;
  RgbImage image;
};

absl::StatusOr<Outcome> RunOn(RankGroup& group, const RequestPlan& plan) {
  Outcome outcome;
  std::vector<EngineTrace*> traces;
  const std::vector<bf16> noise = plan.draws() ? SeedNoise(plan) : std::vector<bf16>{};
  for (int rank = 0; rank < group.world_size(); ++rank) {
    outcome.recorders.push_back(std::make_unique<Recorder>(noise));
    traces.push_back(outcome.recorders.back().get());
  }
  LANCET_ASSIGN_OR_RETURN(const std::vector<WorkResult> results, group.Run(plan, traces));
  for (const WorkResult& result : results) {
    if (result.token.has_value()) outcome.ids.push_back(result.token->id);
  }
  if (!results.empty()) outcome.image = results.back().image.value_or(RgbImage{});
  return outcome;
}

std::vector<double> FinalLatents(const Recorder& recorder) {
  std::vector<double> values;
  for (const bf16 x : recorder.final_latents) values.push_back(ToFloat(x));
  return values;
}

// Rows of logits up to the first token on which the runs part: from there on they answer different questions.
std::pair<std::vector<double>, std::vector<double>> CommonLogits(const Outcome& a, const Outcome& b,
                                                                 int64_t num_valid) {
  std::pair<std::vector<double>, std::vector<double>> logits;
  for (size_t i = 0; i < std::min(a.ids.size(), b.ids.size()); ++i) {
    for (const auto& [outcome, to] : {std::pair{&a, &logits.first}, std::pair{&b, &logits.second}}) {
      const std::vector<double> row = JoinLogits(outcome->recorders, i, num_valid);
      to->insert(to->end(), row.begin(), row.end());
    }
    if (a.ids[i] != b.ids[i]) break;
  }
  return logits;
}

absl::Status Compare(const GoldenContext& context, const Model& model, const Request& request,
                     const Outcome& device, const Outcome& cpu) {
  const auto add = [&](const std::string& quantity, const std::vector<double>& got,
                       const std::vector<double>& expected) -> absl::Status {
    if (got.empty() && expected.empty()) return absl::OkStatus();
    const auto error = context.folder.Bf16Error(model.case_name, quantity, model.tensors.get());
    if (!error.has_value()) {
      return absl::NotFoundError(absl::StrCat(model.case_name, ": no bf16 error of ", quantity));
    }
    context.report.AddRms(request.name, quantity, RelativeRms(got, expected), std::sqrt(2.0) * *error, "CPU");
    return absl::OkStatus();
  };
  const Recorder& ours = *device.recorders[0];
  const Recorder& host = *cpu.recorders[0];
  LANCET_RETURN_IF_ERROR(add("vit_features", ours.features, host.features));
  if (!request.plan.draws()) {
    const auto [got, expected] = CommonLogits(device, cpu, request.plan.answer->num_valid_tokens);
    return add("logits", got, expected);
  }
  LANCET_RETURN_IF_ERROR(add("source_latents", ours.condition, host.condition));
  LANCET_RETURN_IF_ERROR(add("v_cond", ours.v_cond, host.v_cond));
  LANCET_RETURN_IF_ERROR(add("v_uncond", ours.v_uncond, host.v_uncond));
  LANCET_RETURN_IF_ERROR(add("final", FinalLatents(ours), FinalLatents(host)));
  const auto wide = [](const RgbImage& image) {
    std::vector<double> values;
    for (const uint8_t level : image.pixels) values.push_back(level / 127.5 - 1.0);
    return values;
  };
  return add("pixels", wide(device.image), wide(cpu.image));
}

}  // namespace

absl::Status RunAgainstCpu(const GoldenContext& context, RankGroup& cpu, int count, uint64_t seed) {
  const CheckpointPaths& paths = context.checkpoint.paths();
  LANCET_ASSIGN_OR_RETURN(auto tokenizer,
                          Tokenizer::Load({paths.vocab, paths.merges, paths.tokenizer_config}));
  LANCET_ASSIGN_OR_RETURN(const auto builder,
                          PlanBuilder::Create({context.checkpoint.config(), std::move(tokenizer), 1 << 20}));
  std::vector<Model> models;
  for (const char* task : kTasks) {
    LANCET_ASSIGN_OR_RETURN(models.emplace_back(), FindGolden(context, task));
  }
  Drawer drawer(seed);
  for (int i = 0; i < count; ++i) {
    const size_t task = static_cast<size_t>(i) % models.size();
    LANCET_ASSIGN_OR_RETURN(const Request request,
                            DrawRequest(*builder, kTasks[task], models[task].golden, drawer));
    LANCET_ASSIGN_OR_RETURN(const Outcome on_device, RunOn(context.engines, request.plan));
    LANCET_ASSIGN_OR_RETURN(const Outcome on_cpu, RunOn(cpu, request.plan));
    LANCET_RETURN_IF_ERROR(Compare(context, models[task], request, on_device, on_cpu));
  }
  return absl::OkStatus();
}

}  // namespace lancet

// vit: the vision tower on groups of pictures, and its rotary table.

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "kernels/kernel_context.h"
#include "tools/golden/golden_runs.h"
#include "worker/model/vision/vision_encoder.h"
#include "worker/model/vision/vision_rotary.h"

namespace lancet {
namespace {

struct VisionInput {
  ConstMatrixView<bf16> patches;
  std::vector<VisionGrid> grids;
  int64_t tokens = 0;
};

absl::StatusOr<VisionInput> ReadGroup(const StateDict& dict, const VisionConfig& config,
                                      const std::string& group) {
  LANCET_ASSIGN_OR_RETURN(const TensorView patches, dict.Get(absl::StrCat(group, ".patches")));
  LANCET_ASSIGN_OR_RETURN(const TensorView grids, dict.Get(absl::StrCat(group, ".grids")));
  if (patches.dtype != DType::kBf16 || patches.shape.size() != 2 ||
      patches.shape[1] != config.patch_values() || grids.dtype != DType::kI32 || grids.shape.size() != 2 ||
      grids.shape[1] != 3) {
    return absl::InvalidArgumentError(absl::StrCat("group ", group, " does not have the tower's sizes"));
  }
  VisionInput input;
  input.patches = ConstMatrixView<bf16>(patches.as<bf16>(), patches.shape[0], patches.shape[1]);
  const int32_t* grid = grids.as<int32_t>();
  for (int64_t i = 0; i < grids.shape[0]; ++i) {
    input.grids.push_back({grid[3 * i], grid[3 * i + 1], grid[3 * i + 2]});
  }
  input.tokens = input.patches.rows / config.cell_patches();
  return input;
}

struct RankTower {
  std::unique_ptr<KernelContext> ctx;
  std::unique_ptr<VisionEncoder> encoder;
};

// Tokens of one run of a group of ranks, rank after rank. On a CUDA device every rank computes the same on
// its own: one stands for all.
absl::StatusOr<std::vector<std::vector<bf16>>> RunGroup(const GoldenContext& context,
                                                        const std::vector<RankTower>& ranks,
                                                        const VisionInput& input) {
  if (context.cuda != nullptr) {
    LANCET_ASSIGN_OR_RETURN(std::vector<bf16> tokens, context.cuda->Features(input.patches, input.grids));
    return std::vector<std::vector<bf16>>{std::move(tokens)};
  }
  const int64_t width = ranks[0].encoder->config().out_hidden_size;
  std::vector<std::vector<bf16>> tokens(ranks.size(), std::vector<bf16>(input.tokens * width));
  LANCET_RETURN_IF_ERROR(RunOnRanks(static_cast<int>(ranks.size()), ranks[0].encoder->reduce_capacity(),
                                    [&](int rank, Collective& collective) {
                                      ranks[rank].ctx->BindCallingThread();
                                      return ranks[rank].encoder->Encode(
                                          input.patches, input.grids, collective, absl::Minutes(1),
                                          MatrixView<bf16>(tokens[rank].data(), input.tokens, width));
                                    }));
  return tokens;
}

int64_t CountDifferent(const std::vector<bf16>& a, const std::vector<bf16>& b) {
  int64_t different = 0;
  for (size_t i = 0; i < a.size(); ++i) different += a[i] == b[i] ? 0 : 1;
  return different;
}

}  // namespace

absl::Status RunVisionCase(const GoldenContext& context, const std::string& case_name) {
  const VisionTower* tower = context.checkpoint.vision();
  if (tower == nullptr) {
    context.report.AddSkipped(case_name, "the checkpoint has no vision tower");
    return absl::OkStatus();
  }
  const VisionConfig& config = *context.checkpoint.vision_config();
  LANCET_ASSIGN_OR_RETURN(const auto dict, context.folder.Tensors(case_name));
  std::vector<RankTower> ranks;
  for (int rank = 0; rank < context.world_size && context.cuda == nullptr; ++rank) {
    RankTower& own = ranks.emplace_back();
    LANCET_ASSIGN_OR_RETURN(own.ctx, KernelContext::CreateCpu({}));
    LANCET_ASSIGN_OR_RETURN(own.encoder,
                            VisionEncoder::Load(*own.ctx, *tower, config, rank, context.world_size, {}));
  }
  for (const std::string group : {"a", "b", "c"}) {
    LANCET_ASSIGN_OR_RETURN(const VisionInput input, ReadGroup(*dict, config, group));
    LANCET_ASSIGN_OR_RETURN(const auto tokens, RunGroup(context, ranks, input));
    std::vector<double> values;
    for (const bf16 x : tokens[0]) values.push_back(ToFloat(x));
    CompareRms(context, case_name, absl::StrCat(group, ".features"), values, *dict);

    // Every rank, and another run, has the same bytes.
    LANCET_ASSIGN_OR_RETURN(const auto again, RunGroup(context, ranks, input));
    int64_t different = 0;
    for (size_t rank = 0; rank < tokens.size(); ++rank) {
      different += CountDifferent(tokens[0], tokens[rank]) + CountDifferent(tokens[0], again[rank]);
    }
    context.report.AddExact(case_name, absl::StrCat(group, " repeated"), different,
                            2 * static_cast<int64_t>(tokens.size() * tokens[0].size()));
  }
  return absl::OkStatus();
}

absl::Status AddVisionTable(const GoldenContext& context, const std::string& case_name,
                            const StateDict& dict) {
  LANCET_ASSIGN_OR_RETURN(const TensorView place, dict.Get("vit.place"));
  LANCET_ASSIGN_OR_RETURN(const TensorView cos, dict.Get("vit.cos"));
  LANCET_ASSIGN_OR_RETURN(const TensorView sin, dict.Get("vit.sin"));
  if (cos.shape.size() != 2 || sin.shape != cos.shape || place.shape != Shape{cos.shape[0], 2}) {
    return absl::InvalidArgumentError(absl::StrCat("vit.cos has shape ", ShapeString(cos.shape)));
  }
  // The table's own head size, whatever the checkpoint's.
  const int64_t angles = cos.shape[1];
  const VisionRotaryTable table(2 * angles);
  std::vector<bf16> row_cos(angles);
  std::vector<bf16> row_sin(angles);
  TableCount count;
  for (int64_t i = 0; i < cos.shape[0]; ++i) {
    table.Row({place.as<int32_t>()[2 * i], place.as<int32_t>()[2 * i + 1]}, row_cos.data(), row_sin.data());
    for (int64_t a = 0; a < angles; ++a) {
      count.Add(row_cos[a], cos.as<bf16>()[i * angles + a]);
      count.Add(row_sin[a], sin.as<bf16>()[i * angles + a]);
    }
  }
  count.Report(context, case_name, "vit");
  return absl::OkStatus();
}

}  // namespace lancet

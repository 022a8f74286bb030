// Exact results: token ids, blocks and position ids.

#include <zlib.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "common/vision_config.h"
#include "coordinator/request/plan_builder.h"
#include "coordinator/request/unicode.h"
#include "tools/golden/golden_runs.h"

namespace lancet {
namespace {

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const Checkpoint& checkpoint) {
  const CheckpointPaths& paths = checkpoint.paths();
  return Tokenizer::Load({paths.vocab, paths.merges, paths.tokenizer_config});
}

// CRC-32 of positions as little-endian int32 [3, n].
std::string PositionsCrc(const Positions& positions) {
  uLong crc = crc32(0, nullptr, 0);
  for (const auto* axis : {&positions.t, &positions.h, &positions.w}) {
    crc = crc32(crc, reinterpret_cast<const Bytef*>(axis->data()),
                static_cast<uInt>(axis->size() * sizeof(int32_t)));
  }
  return absl::StrFormat("%08X", crc);
}

// Wrong entries among one block's ids and positions.
int64_t CompareBlock(const nlohmann::json& expected, const std::vector<int32_t>& ids,
                     const Positions& positions, const char* which) {
  int64_t wrong = 0;
  const auto expected_ids = ExpandRuns(expected["ids"]);
  if (!expected_ids.ok() || *expected_ids != ids) ++wrong;
  if (expected.contains(which) && expected[which].value("crc32", "") != PositionsCrc(positions)) ++wrong;
  return wrong;
}

std::vector<int32_t> TargetIds(const TargetBlock& target, int32_t placeholder) {
  std::vector<int32_t> ids(target.num_latents() + 2, placeholder);
  ids.front() = target.start_token_id;
  ids.back() = target.end_token_id;
  return ids;
}

// A block's ids, with the placeholders of a picture.
std::vector<int32_t> BlockIds(const PrefixBlock& block, int32_t placeholder) {
  if (block.kind == PrefixKind::kText) return block.token_ids;
  std::vector<int32_t> ids(block.rows(), placeholder);
  ids.front() = block.token_ids.front();
  ids.back() = block.token_ids.back();
  return ids;
}

// A picture of as many cells as a case says: [frames, height, width].
RgbImage BlankImage(const nlohmann::json& grid, int32_t cell_side) {
  const auto height = grid[1].get<int32_t>() * cell_side;
  const auto width = grid[2].get<int32_t>() * cell_side;
  return {width, height, std::vector<uint8_t>(3 * static_cast<size_t>(width) * height)};
}

absl::StatusOr<RequestPlan> PlanOf(const PlanBuilder& builder, const nlohmann::json& item,
                                   const std::string& task) {
  const std::string prompt(StripWhitespace(item["prompt"].get_ref<const std::string&>()));
  if (task == "x2t_image") {
    DescribeParams params;
    params.question = prompt;
    params.system_prompt = item.value("system", kDescribeSystem);
    return builder.BuildDescribe(1, params, BlankImage(item["vit"], kVisionCellSide));
  }
  if (task == "image_edit") {
    EditParams params;
    params.instruction = prompt;
    return builder.BuildEdit(1, params, BlankImage(item["vit"], kVisionCellSide),
                             BlankImage(item["latent"], kPixelsPerLatent));
  }
  GenerateParams params;
  params.prompt = prompt;
  params.height = item["latent"][1].get<int32_t>() * kPixelsPerLatent;
  params.width = item["latent"][2].get<int32_t>() * kPixelsPerLatent;
  return builder.Build(1, params);
}

}  // namespace

absl::Status RunTokenizerCase(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json golden, context.folder.Json(case_name));
  LANCET_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(context.checkpoint));
  if (golden.value("length", 0) != tokenizer->size()) {
    context.report.AddSkipped(case_name, absl::StrCat("made with a vocabulary of ", golden.value("length", 0),
                                                      " tokens; the checkpoint's has ", tokenizer->size()));
    return absl::OkStatus();
  }
  int64_t wrong = 0;
  for (const auto& item : golden["cases"]) {
    const std::string text = item["text"].get<std::string>();
    const auto ids = item["ids"].get<std::vector<int32_t>>();
    const auto plain_ids = item.contains("plain_ids") ? item["plain_ids"].get<std::vector<int32_t>>() : ids;
    const auto got = tokenizer->EncodeWithSpecials(text);
    const auto got_plain = tokenizer->Encode(text);
    wrong += !got.ok() || *got != ids ? 1 : 0;
    wrong += !got_plain.ok() || *got_plain != plain_ids ? 1 : 0;
  }
  context.report.AddExact(case_name, "ids", wrong, 2 * static_cast<int64_t>(golden["cases"].size()));
  return absl::OkStatus();
}

absl::Status RunPositionsCase(const GoldenContext& context, const std::string& case_name) {
  LANCET_ASSIGN_OR_RETURN(const nlohmann::json cases, context.folder.Json(case_name));
  LANCET_ASSIGN_OR_RETURN(auto tokenizer, LoadTokenizer(context.checkpoint));
  const ModelConfig& config = context.checkpoint.config();
  // The cases name their vocabulary but not its size; the marker ids tell whether it is this checkpoint's.
  LANCET_ASSIGN_OR_RETURN(const auto builder, PlanBuilder::Create({config, std::move(tokenizer), 1 << 20}));
  struct Tally {
    int64_t wrong = 0;
    int64_t compared = 0;
  };
  std::map<std::string, Tally> tallies;  // by task
  int64_t clips = 0;
  int64_t other_vocabulary = 0;
  for (const auto& item : cases) {
    const std::string task = item.value("task", "");
    if (task != "t2i" && task != "image_edit" && task != "x2t_image") {
      ++clips;
      continue;
    }
    // The first picture of any case begins with the marker.
    const auto& blocks = item["blocks"];
    const auto picture = std::find_if(blocks.begin(), blocks.end(),
                                      [](const auto& block) { return !block["grid"].is_null(); });
    if ((*picture)["ids"][0][0].template get<int32_t>() != config.vision_start_token_id) {
      ++other_vocabulary;
      continue;
    }
    LANCET_ASSIGN_OR_RETURN(const RequestPlan plan, PlanOf(*builder, item, task));
    const char* natural = plan.draws() ? "cond" : "natural";
    Tally& tally = tallies[task];
    size_t index = 0;
    for (const PrefixBlock& block : plan.prefix) {
      std::vector<int32_t> ids = BlockIds(block, config.video_token_id);
      Positions positions = block.positions;
      if (plan.answer.has_value() && index + 1 == plan.prefix.size()) {
        // A plan holds the last token back, to be fed first.
        ids.push_back(plan.answer->first_token_id);
        for (auto* axis : {&positions.t, &positions.h, &positions.w})
          axis->push_back(plan.answer->first_position);
      }
      tally.wrong += CompareBlock(blocks[index++], ids, positions, natural);
    }
    if (plan.draws()) {
      const std::vector<int32_t> target_ids = TargetIds(plan.target, config.video_token_id);
      tally.wrong += CompareBlock(blocks[index], target_ids, plan.target.conditional, "cond");
      tally.wrong += CompareBlock(blocks[index], target_ids, plan.target.unconditional, "uncond");
      // The end token after the picture is never evaluated, so a plan has none.
      index += 2;
    }
    tally.wrong += index == blocks.size() ? 0 : 1;
    tally.compared += static_cast<int64_t>(index) + 1;
  }
  for (const auto& [task, tally] : tallies)
    context.report.AddExact(case_name, task, tally.wrong, tally.compared);
  context.report.AddSkipped(case_name, absl::StrCat(clips, " cases of clips, which are not served, ",
                                                    other_vocabulary, " of another vocabulary"));
  return absl::OkStatus();
}

}  // namespace lancet

// Exact results: token ids, blocks and position ids.

#include <zlib.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
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
  int64_t wrong = 0;
  int64_t compared = 0;
  int64_t other_task = 0;
  int64_t other_vocabulary = 0;
  for (const auto& item : cases) {
    if (item.value("task", "") != "t2i") {
      ++other_task;
      continue;
    }
    const auto& target = item["blocks"][item["blocks"].size() - 2];
    if (target["ids"][0][0].get<int32_t>() != config.vision_start_token_id) {
      ++other_vocabulary;
      continue;
    }
    GenerateParams params;
    params.prompt = std::string(StripWhitespace(item["prompt"].get_ref<const std::string&>()));
    params.height = item["latent"][1].get<int32_t>() * kPixelsPerLatent;
    params.width = item["latent"][2].get<int32_t>() * kPixelsPerLatent;
    LANCET_ASSIGN_OR_RETURN(const RequestPlan plan, builder->Build(1, params));
    size_t index = 0;
    for (const PrefixBlock& block : plan.prefix) {
      wrong += CompareBlock(item["blocks"][index++], block.token_ids, block.positions, "cond");
    }
    const std::vector<int32_t> target_ids = TargetIds(plan.target, config.video_token_id);
    wrong += CompareBlock(item["blocks"][index], target_ids, plan.target.conditional, "cond");
    wrong += CompareBlock(item["blocks"][index], target_ids, plan.target.unconditional, "uncond");
    // The end token after the picture is never evaluated, so a plan has none.
    wrong += index + 2 == item["blocks"].size() ? 0 : 1;
    compared += static_cast<int64_t>(index) + 2;
  }
  if (compared > 0) context.report.AddExact(case_name, "t2i", wrong, compared);
  context.report.AddSkipped(case_name, absl::StrCat(other_task, " cases of tasks not built yet, ",
                                                    other_vocabulary, " of another vocabulary"));
  return absl::OkStatus();
}

}  // namespace lancet

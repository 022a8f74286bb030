#include "coordinator/request/prompt_builder.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// The instruction that the model was trained with for text to image, word for word.
constexpr char kTextToImageSystem[] =
    "Describe the image by detailing the color, quantity, text, shape, size, texture, spatial relationships "
    "of the "
    "objects and background:";

constexpr char kAfterCaption[] = "<|im_end|>\n<|im_start|>assistant\n";

absl::StatusOr<int32_t> RequireAddedToken(const Tokenizer& tokenizer, absl::string_view content) {
  const std::optional<int32_t> id = tokenizer.AddedTokenId(content);
  if (!id.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer_config.json: added token ", content, " is missing"));
  }
  return *id;
}

// The id of `content`, which must be what llm_config.json calls `key`.
absl::StatusOr<int32_t> RequireAgreement(const Tokenizer& tokenizer, absl::string_view content,
                                         absl::string_view key, int32_t expected) {
  LANCET_ASSIGN_OR_RETURN(const int32_t id, RequireAddedToken(tokenizer, content));
  if (id != expected) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer_config.json: ", content, " has id ", id,
                                                   ", but llm_config.json says ", key, " = ", expected));
  }
  return id;
}

}  // namespace

BlockExtent PromptBlock::extent() const {
  BlockExtent extent;
  if (kind == BlockKind::kTarget) {
    extent.grid = grid;
  } else {
    extent.num_text_tokens = static_cast<int64_t>(token_ids.size());
  }
  return extent;
}

absl::StatusOr<PromptBuilder> PromptBuilder::Create(const Tokenizer& tokenizer, const ModelConfig& config) {
  if (tokenizer.size() > config.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tokenizer has ", tokenizer.size(),
                     " tokens, but llm_config.json says vocab_size = ", config.vocab_size));
  }
  PromptBuilder builder;
  LANCET_RETURN_IF_ERROR(RequireAddedToken(tokenizer, "<|im_start|>").status());
  LANCET_RETURN_IF_ERROR(
      RequireAgreement(tokenizer, "<|im_end|>", "eos_token_id", config.eos_token_id).status());
  LANCET_RETURN_IF_ERROR(
      RequireAgreement(tokenizer, "<|video_pad|>", "video_token_id", config.video_token_id).status());
  LANCET_ASSIGN_OR_RETURN(
      builder.vision_start_id_,
      RequireAgreement(tokenizer, "<|vision_start|>", "vision_start_token_id", config.vision_start_token_id));
  LANCET_ASSIGN_OR_RETURN(
      builder.vision_end_id_,
      RequireAgreement(tokenizer, "<|vision_end|>", "vision_end_token_id", config.vision_end_token_id));
  LANCET_ASSIGN_OR_RETURN(builder.before_caption_,
                          tokenizer.EncodeWithSpecials(absl::StrCat(
                              "<|im_start|>system\n", kTextToImageSystem, "<|im_end|>\n<|im_start|>user\n")));
  LANCET_ASSIGN_OR_RETURN(builder.after_caption_, tokenizer.EncodeWithSpecials(kAfterCaption));
  return builder;
}

absl::StatusOr<std::vector<PromptBlock>> PromptBuilder::TextToImage(const Tokenizer& tokenizer,
                                                                    absl::string_view prompt,
                                                                    LatentGrid grid) const {
  LANCET_ASSIGN_OR_RETURN(std::vector<int32_t> caption, tokenizer.Encode(prompt));
  std::vector<PromptBlock> blocks;
  blocks.push_back({BlockKind::kTemplate, before_caption_, {}});
  if (caption.empty()) {
    // Blocks of no tokens do not exist, and neighbours of one kind are one run.
    std::vector<int32_t>& ids = blocks.front().token_ids;
    ids.insert(ids.end(), after_caption_.begin(), after_caption_.end());
  } else {
    blocks.push_back({BlockKind::kCaption, std::move(caption), {}});
    blocks.push_back({BlockKind::kTemplate, after_caption_, {}});
  }
  blocks.push_back({BlockKind::kTarget, {}, grid});
  return blocks;
}

}  // namespace lancet

#include "tools/make_random/companion_files.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "common/trunk_layout.h"
#include "nlohmann/json.hpp"

namespace lancet {
namespace {

using nlohmann::ordered_json;

constexpr std::array kAddedTokens = {
    "<|endoftext|>",  "<|im_start|>",   "<|im_end|>",     "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>",  "<|box_end|>",    "<|quad_start|>", "<|quad_end|>",         "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",  "<|video_pad|>",        "<tool_call>",
    "</tool_call>",   "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",       "<|fim_pad|>",
    "<|repo_name|>",  "<|file_sep|>"};
static_assert(kAddedTokens.size() == 22);
constexpr size_t kFirstPlainAddedToken = 14;  // from here on they are not "special"

std::string Utf8(int code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
}

// How GPT-2's vocabularies spell the bytes: printable characters of Latin-1 stand for themselves, the others
// for the code points from 256 on.
std::array<std::string, 256> ByteSpellings() {
  std::array<std::string, 256> spellings;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    spellings[byte] = Utf8(itself ? byte : next++);
  }
  return spellings;
}

ordered_json VisionJson(const RandomDims& dims) {
  const VisionConfig& vision = dims.vision;
  return {{"depth", vision.depth},
          {"hidden_act", "silu"},
          {"hidden_size", vision.hidden_size},
          {"intermediate_size", vision.intermediate_size},
          {"num_heads", vision.num_heads},
          {"in_chans", 3},
          {"out_hidden_size", vision.out_hidden_size},
          {"patch_size", vision.patch_size},
          {"spatial_merge_size", vision.merge_size},
          {"spatial_patch_size", vision.patch_size},
          {"window_size", vision.window_cells * vision.merge_size * vision.patch_size},
          {"fullatt_block_indexes", vision.full_attention_blocks},
          {"tokens_per_second", 2},
          {"temporal_patch_size", vision.temporal_patch_size}};
}

}  // namespace

std::string RandomLlmConfig(const RandomDims& dims) {
  const ModelConfig& trunk = dims.trunk;
  const ordered_json config = {{"architectures", {"Qwen2_5_VLForConditionalGeneration"}},
                               {"attention_dropout", 0.0},
                               {"bos_token_id", trunk.bos_token_id},
                               {"eos_token_id", trunk.eos_token_id},
                               {"vision_start_token_id", trunk.vision_start_token_id},
                               {"vision_end_token_id", trunk.vision_end_token_id},
                               {"video_token_id", trunk.video_token_id},
                               {"hidden_act", "silu"},
                               {"hidden_size", trunk.hidden_size},
                               {"intermediate_size", trunk.intermediate_size},
                               {"model_type", "qwen2_5_vl"},
                               {"num_attention_heads", trunk.num_heads},
                               {"num_hidden_layers", trunk.num_layers},
                               {"num_key_value_heads", trunk.num_kv_heads},
                               {"rms_norm_eps", 1e-6},
                               {"rope_theta", trunk.rope_theta},
                               {"tie_word_embeddings", false},
                               {"torch_dtype", "bfloat16"},
                               {"use_sliding_window", false},
                               {"vocab_size", trunk.vocab_size},
                               {"rope_scaling", {{"type", "mrope"}, {"mrope_section", trunk.mrope_section}}},
                               {"vision_config", VisionJson(dims)}};
  return config.dump(2);
}

std::string RandomVisionConfig(const RandomDims& dims) { return VisionJson(dims).dump(2); }

std::string RandomTrunkMeta(const RandomDims& dims) {
  ordered_json per_weight = ordered_json::object();
  int awq = 0;
  int plain = 0;
  for (const TrunkLinear& linear : TrunkLinears(dims.trunk)) {
    // Norms carry the factors of what follows them; o_proj and down_proj follow none.
    const bool follows_norm = linear.base.find(".o_proj") == std::string::npos &&
                              linear.base.find(".down_proj") == std::string::npos;
    ++(follows_norm ? awq : plain);
    per_weight[linear.base + ".weight"] = {{"shape", {linear.out, linear.in}},
                                           {"block_size", kNvfp4Block},
                                           {"scheme", follows_norm ? "nvfp4_awq" : "nvfp4_minmax"}};
  }
  const ordered_json meta = {{"block_size", kNvfp4Block},
                             {"scheme", "nvfp4_e2m1_block_fp8scale"},
                             {"awq_linears", awq},
                             {"plain_linears", plain},
                             {"tasks_calibrated", ordered_json::array()},
                             {"fp4_lut_pos", {0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0}},
                             {"per_weight", std::move(per_weight)}};
  return meta.dump(2);
}

RandomTokenizer MakeRandomTokenizer(const RandomDims& dims) {
  const std::array<std::string, 256> bytes = ByteSpellings();
  RandomTokenizer tokenizer;
  absl::StrAppend(&tokenizer.vocab, "{");
  absl::StrAppend(&tokenizer.merges, "#version: 0.2\n");
  const auto add = [&](const std::string& spelling, int id) {
    absl::StrAppend(&tokenizer.vocab, id > 0 ? ",\n" : "\n", ordered_json(spelling).dump(), ": ", id);
  };
  int id = 0;
  for (; id < 256; ++id) add(bytes[id], id);
  for (int pair = 0; pair < 1 << 16 && id < dims.base_tokens; ++pair, ++id) {
    const std::string& left = bytes[pair >> 8];
    const std::string& right = bytes[pair & 0xff];
    add(left + right, id);
    absl::StrAppend(&tokenizer.merges, left, " ", right, "\n");
  }
  for (int triple = 0; id < dims.base_tokens; ++triple, ++id) {
    const std::string left = bytes[triple >> 16] + bytes[(triple >> 8) & 0xff];
    const std::string& right = bytes[triple & 0xff];
    add(left + right, id);
    absl::StrAppend(&tokenizer.merges, left, " ", right, "\n");
  }
  absl::StrAppend(&tokenizer.vocab, "\n}\n");
  ordered_json added = ordered_json::object();
  for (size_t i = 0; i < kAddedTokens.size(); ++i) {
    added[absl::StrCat(dims.base_tokens + static_cast<int>(i))] = {
        {"content", kAddedTokens[i]}, {"lstrip", false},
        {"normalized", false},        {"rstrip", false},
        {"single_word", false},       {"special", i < kFirstPlainAddedToken}};
  }
  const ordered_json config = {{"add_prefix_space", false},
                               {"added_tokens_decoder", std::move(added)},
                               {"eos_token", "<|im_end|>"},
                               {"pad_token", "<|endoftext|>"},
                               {"tokenizer_class", "Qwen2Tokenizer"}};
  tokenizer.config = config.dump(2);
  return tokenizer;
}

}  // namespace lancet

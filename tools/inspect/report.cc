#include "tools/inspect/report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace lancet {
namespace {

using Json = nlohmann::ordered_json;

double Share(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string Percent(int64_t part, int64_t whole) {
  return absl::StrFormat("%.4g %%", 100 * Share(part, whole));
}

std::string Bytes(int64_t bytes) {
  if (bytes < 1'000'000) return absl::StrFormat("%.1f kB", static_cast<double>(bytes) / 1e3);
  if (bytes < 1'000'000'000) return absl::StrFormat("%.1f MB", static_cast<double>(bytes) / 1e6);
  return absl::StrFormat("%.2f GB", static_cast<double>(bytes) / 1e9);
}

// --- JSON ---

Json ToJson(const ScaleStatistics& scales) {
  return {{"linears", scales.linears},
          {"blocks", scales.blocks},
          {"e4m3_subnormal", scales.e4m3_subnormal},
          {"e4m3_zero", scales.e4m3_zero},
          {"e4m3_nan", scales.e4m3_nan},
          {"e4m3_negative", scales.e4m3_negative},
          {"e4m3_more_than_one_step_from_bf16", scales.e4m3_off},
          {"bf16_invalid", scales.bf16_invalid},
          {"bf16_min", scales.bf16_min},
          {"bf16_median", scales.bf16_median},
          {"bf16_max", scales.bf16_max},
          {"sampled_blocks", scales.codes.counted},
          {"sampled_blocks_with_largest_code", scales.codes.with_largest_code}};
}

Json ToJson(const FileInspection& file, const ReportOptions& options) {
  Json json = {{"path", file.path},
               {"fingerprint", file.fingerprint},
               {"tensors", file.tensors.size()},
               {"bytes", file.bytes}};
  for (const auto& [kind, group] : file.groups) {
    json["kinds"].push_back({{"kind", TensorKindName(kind)},
                             {"tensors", group.tensors},
                             {"bytes", group.bytes},
                             {"dtypes", group.dtypes}});
  }
  if (file.scales.linears > 0) json["scales"] = ToJson(file.scales);
  if (options.list_tensors) {
    for (const TensorLine& line : file.tensors) {
      json["list"].push_back({{"name", line.name},
                              {"dtype", DTypeName(line.dtype)},
                              {"shape", std::vector<int64_t>(line.shape.begin(), line.shape.end())}});
    }
  }
  return json;
}

Json ToJson(const ModelConfig& config) {
  return {{"hidden_size", config.hidden_size},
          {"num_layers", config.num_layers},
          {"num_heads", config.num_heads},
          {"num_kv_heads", config.num_kv_heads},
          {"head_dim", config.head_dim},
          {"intermediate_size", config.intermediate_size},
          {"vocab_size", config.vocab_size},
          {"rms_norm_eps", config.rms_norm_eps},
          {"rope_theta", config.rope_theta},
          {"mrope_section", config.mrope_section},
          {"vision_start_token_id", config.vision_start_token_id},
          {"vision_end_token_id", config.vision_end_token_id},
          {"video_token_id", config.video_token_id},
          {"eos_token_id", config.eos_token_id}};
}

Json ToJson(const VisionConfig& config) {
  return {{"depth", config.depth},
          {"hidden_size", config.hidden_size},
          {"num_heads", config.num_heads},
          {"head_dim", config.head_dim},
          {"intermediate_size", config.intermediate_size},
          {"patch_size", config.patch_size},
          {"temporal_patch_size", config.temporal_patch_size},
          {"merge_size", config.merge_size},
          {"window_cells", config.window_cells},
          {"full_attention_blocks", config.full_attention_blocks},
          {"out_hidden_size", config.out_hidden_size}};
}

Json ToJson(const CheckpointInspection& checkpoint, const ReportOptions& options) {
  const CheckpointPaths& paths = checkpoint.paths;
  Json json = {{"name", checkpoint.card.name}, {"fingerprint", checkpoint.fingerprint}};
  json["paths"] = {{"trunk", paths.trunk},
                   {"trunk_meta", paths.trunk_meta},
                   {"llm_config", paths.llm_config},
                   {"vocab", paths.vocab},
                   {"merges", paths.merges},
                   {"tokenizer_config", paths.tokenizer_config},
                   {"vae", paths.vae},
                   {"vit_config", paths.vit_config},
                   {"vit", paths.vit},
                   {"lancet_json", paths.lancet_json}};
  json["config"] = ToJson(checkpoint.config);
  json["default_size"] = {checkpoint.card.default_size.width, checkpoint.card.default_size.height};
  json["has_latent_rgb"] = checkpoint.card.latent_rgb.has_value();
  json["schemes"] = checkpoint.schemes;
  json["trunk"] = ToJson(checkpoint.trunk, options);
  json["vae"] = ToJson(checkpoint.vae, options);
  json["vae"]["image_only"] = checkpoint.vae_layout.image_only;
  json["vae"]["has_encoder"] = checkpoint.vae_layout.has_encoder;
  json["vision"] = nullptr;
  if (checkpoint.vision.has_value()) {
    json["vision"] = ToJson(*checkpoint.vision, options);
    json["vision"]["config"] = ToJson(*checkpoint.vision_config);
    json["vision"]["tensors_in_trunk"] = checkpoint.vision_tensors_in_trunk;
  }
  json["unexpected"] = checkpoint.unexpected;
  for (const RankMemory& memory : checkpoint.memory) {
    json["memory"].push_back({{"ranks", memory.world_size},
                              {"trunk_bytes_per_rank", memory.trunk_bytes},
                              {"vision_bytes_per_rank", memory.vision_bytes}});
  }
  return json;
}

// Names come from files and may hold anything.
std::string Print(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

// --- Text ---

std::string DTypes(const TensorGroup& group) {
  return absl::StrJoin(group.dtypes, ", ",
                       [](std::string* out, const auto& entry) { absl::StrAppend(out, entry.first); });
}

std::string Text(const FileInspection& file, const ReportOptions& options) {
  std::string out = absl::StrFormat("%s\n  %d tensors, %s, fingerprint %s\n", file.path, file.tensors.size(),
                                    Bytes(file.bytes), file.fingerprint);
  for (const auto& [kind, group] : file.groups) {
    absl::StrAppendFormat(&out, "  %-32s %6d  %10s  %s\n", TensorKindName(kind), group.tensors,
                          Bytes(group.bytes), DTypes(group));
  }
  if (const ScaleStatistics& s = file.scales; s.linears > 0) {
    absl::StrAppendFormat(&out, "  NVFP4: %d linears, %d blocks\n", s.linears, s.blocks);
    absl::StrAppendFormat(&out,
                          "    bf16 scales  min %.4g, median %.4g, max %.4g; %d not finite and positive\n",
                          s.bf16_min, s.bf16_median, s.bf16_max, s.bf16_invalid);
    absl::StrAppendFormat(
        &out,
        "    E4M3 scales  %d subnormal (%s), %d zero, %d NaN, %d negative, %d more than a step from bf16\n",
        s.e4m3_subnormal, Percent(s.e4m3_subnormal, s.blocks), s.e4m3_zero, s.e4m3_nan, s.e4m3_negative,
        s.e4m3_off);
    absl::StrAppendFormat(&out, "    codes        %s of %d sampled blocks use the largest code\n",
                          Percent(s.codes.with_largest_code, s.codes.counted), s.codes.counted);
  }
  if (options.list_tensors) {
    for (const TensorLine& line : file.tensors) {
      absl::StrAppendFormat(&out, "  %-4s %-24s %s\n", DTypeName(line.dtype), ShapeString(line.shape),
                            line.name);
    }
  }
  return out;
}

std::string Text(const ModelConfig& config) {
  return absl::StrFormat(
      "  hidden %d, layers %d, heads %d query and %d key/value of %d, inner %d, vocabulary %d\n"
      "  rope theta %g, sections %d %d %d; tokens: vision start %d, vision end %d, placeholder %d, end %d\n",
      config.hidden_size, config.num_layers, config.num_heads, config.num_kv_heads, config.head_dim,
      config.intermediate_size, config.vocab_size, config.rope_theta, config.mrope_section[0],
      config.mrope_section[1], config.mrope_section[2], config.vision_start_token_id,
      config.vision_end_token_id, config.video_token_id, config.eos_token_id);
}

std::string VisionText(const CheckpointInspection& checkpoint, const ReportOptions& options) {
  if (!checkpoint.vision.has_value()) return "\nvision tower: none; draws from text alone\n";
  const VisionConfig& config = *checkpoint.vision_config;
  std::string out = absl::StrCat("\nvision tower: ", Text(*checkpoint.vision, options));
  absl::StrAppendFormat(
      &out,
      "  depth %d, hidden %d, heads %d of %d, inner %d, patches of %d pixels, cells of %d by %d "
      "patches, windows of %d by %d cells, full attention in %s\n",
      config.depth, config.hidden_size, config.num_heads, config.head_dim, config.intermediate_size,
      config.patch_size, config.merge_size, config.merge_size, config.window_cells, config.window_cells,
      absl::StrJoin(config.full_attention_blocks, " "));
  if (checkpoint.vision_tensors_in_trunk > 0) {
    absl::StrAppendFormat(&out, "  %d of its tensors come from the trunk's file\n",
                          checkpoint.vision_tensors_in_trunk);
  }
  return out;
}

std::string Text(const CheckpointInspection& checkpoint, const ReportOptions& options) {
  constexpr size_t kMaxUnexpectedLines = 20;
  std::string out = absl::StrFormat("%s, fingerprint %s\n", checkpoint.card.name, checkpoint.fingerprint);
  out += Text(checkpoint.config);
  absl::StrAppendFormat(&out, "  default size %dx%d, preview colours %s\n",
                        checkpoint.card.default_size.width, checkpoint.card.default_size.height,
                        checkpoint.card.latent_rgb ? "its own" : "built in");
  const std::string memory =
      absl::StrJoin(checkpoint.memory, ", ", [](std::string* text, const RankMemory& rank) {
        absl::StrAppend(text, Bytes(rank.trunk_bytes), " of ", rank.world_size);
      });
  absl::StrAppend(&out, "  trunk in memory, per rank: ", memory, "\n");
  if (checkpoint.vision.has_value()) {
    const std::string vision =
        absl::StrJoin(checkpoint.memory, ", ", [](std::string* text, const RankMemory& rank) {
          absl::StrAppend(text, Bytes(rank.vision_bytes), " of ", rank.world_size);
        });
    absl::StrAppend(&out, "  vision tower in memory, per rank: ", vision, "\n");
  }
  absl::StrAppend(&out, "\ntrunk: ", Text(checkpoint.trunk, options));
  const std::string schemes = absl::StrJoin(checkpoint.schemes, ", ", absl::PairFormatter(": "));
  absl::StrAppend(&out, "    schemes      ", schemes.empty() ? "no nvfp4_meta.json" : schemes, "\n");
  absl::StrAppend(&out, "\nautoencoder: ", Text(checkpoint.vae, options));
  absl::StrAppend(&out,
                  checkpoint.vae_layout.image_only ? "  for pictures only (one temporal tap)"
                                                   : "  for pictures and videos",
                  checkpoint.vae_layout.has_encoder ? "\n" : "; no encoder\n");
  out += VisionText(checkpoint, options);
  if (!checkpoint.unexpected.empty()) {
    absl::StrAppendFormat(&out, "\n%d tensors that nothing reads:\n", checkpoint.unexpected.size());
    for (size_t i = 0; i < checkpoint.unexpected.size() && i < kMaxUnexpectedLines; ++i) {
      absl::StrAppend(&out, "  ", checkpoint.unexpected[i], "\n");
    }
    if (checkpoint.unexpected.size() > kMaxUnexpectedLines)
      absl::StrAppend(&out, "  ... (--json lists all)\n");
  }
  return out;
}

}  // namespace

std::string Report(const FileInspection& file, const ReportOptions& options) {
  return options.json ? Print(ToJson(file, options)) : Text(file, options);
}

std::string Report(const CheckpointInspection& checkpoint, const ReportOptions& options) {
  return options.json ? Print(ToJson(checkpoint, options)) : Text(checkpoint, options);
}

}  // namespace lancet

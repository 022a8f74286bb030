#include "tools/inspect/tensor_kind.h"

#include <array>

#include "absl/strings/match.h"

namespace lancet {
namespace {

struct Rule {
  absl::string_view prefix;
  absl::string_view part;  // anywhere in the name
  absl::string_view suffix;
  TensorKind kind;
};

// The first rule that fits decides.
constexpr std::array kRules = {
    Rule{"vit_model.", "", "", TensorKind::kVisionTower},
    Rule{"blocks.", "", "", TensorKind::kVisionTower},  // in a file of its own
    Rule{"merger.", "", "", TensorKind::kVisionTower},
    Rule{"patch_embed.", "", "", TensorKind::kVisionTower},
    Rule{"latent_pos_embed.", "", "", TensorKind::kLatentTable},
    Rule{"language_model.", "", ".qweight", TensorKind::kCodes},
    Rule{"language_model.", "", ".scales_fp8", TensorKind::kScalesFp8},
    Rule{"language_model.", "", ".scales_bf16", TensorKind::kScalesBf16},
    Rule{"language_model.", "_proj", ".bias", TensorKind::kBias},
    Rule{"language_model.", "norm", ".weight", TensorKind::kNorm},
    Rule{"language_model.", "_proj", ".weight", TensorKind::kDense},
    Rule{"language_model.model.embed_tokens.", "", "", TensorKind::kEmbedding},
    Rule{"language_model.lm_head.", "", "", TensorKind::kHead},
    Rule{"time_embedder.", "", "", TensorKind::kAdapter},
    Rule{"vae2llm.", "", "", TensorKind::kAdapter},
    Rule{"llm2vae.", "", "", TensorKind::kAdapter},
    Rule{"decoder.", "", "", TensorKind::kVaeDecoder},
    Rule{"conv2.", "", "", TensorKind::kVaeDecoder},
    Rule{"encoder.", "", "", TensorKind::kVaeEncoder},
    Rule{"conv1.", "", "", TensorKind::kVaeEncoder},
};

}  // namespace

absl::string_view TensorKindName(TensorKind kind) {
  switch (kind) {
    case TensorKind::kCodes:
      return "NVFP4 codes";
    case TensorKind::kScalesFp8:
      return "NVFP4 scales, E4M3 (unused)";
    case TensorKind::kScalesBf16:
      return "NVFP4 scales, bf16";
    case TensorKind::kDense:
      return "linears, not quantised";
    case TensorKind::kBias:
      return "biases";
    case TensorKind::kNorm:
      return "norms";
    case TensorKind::kEmbedding:
      return "token embedding";
    case TensorKind::kHead:
      return "token head";
    case TensorKind::kAdapter:
      return "latent and time adapters";
    case TensorKind::kLatentTable:
      return "latent position table (ignored)";
    case TensorKind::kVisionTower:
      return "vision tower";
    case TensorKind::kVaeDecoder:
      return "autoencoder, decoder";
    case TensorKind::kVaeEncoder:
      return "autoencoder, encoder";
    case TensorKind::kOther:
      return "other";
  }
  return "other";
}

TensorKind KindOf(absl::string_view name) {
  for (const Rule& rule : kRules) {
    if (absl::StartsWith(name, rule.prefix) && absl::StrContains(name, rule.part) &&
        absl::EndsWith(name, rule.suffix)) {
      return rule.kind;
    }
  }
  return TensorKind::kOther;
}

}  // namespace lancet

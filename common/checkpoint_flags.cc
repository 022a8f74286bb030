#include "common/checkpoint_flags.h"

#include <string>

#include "absl/flags/flag.h"

ABSL_FLAG(std::string, model_dir, "",
          "Folder of the model as downloaded: Lance_3B-NVFP4/ (or its two files), llm_config.json and the "
          "tokenizer "
          "files (there or in Lance_3B/), Wan2.2_VAE.safetensors or Wan2.2_VAE.pth, and optionally "
          "Qwen2.5-VL-ViT/ and "
          "lancet.json");
ABSL_FLAG(std::string, trunk, "", "nvfp4_state_dict.safetensors, if not in --model_dir");
ABSL_FLAG(std::string, trunk_meta, "", "nvfp4_meta.json, if not beside the trunk");
ABSL_FLAG(std::string, llm_config, "", "llm_config.json, if not in --model_dir");
ABSL_FLAG(std::string, vocab, "", "vocab.json, if not in --model_dir");
ABSL_FLAG(std::string, merges, "", "merges.txt, if not in --model_dir");
ABSL_FLAG(std::string, tokenizer_config, "", "tokenizer_config.json, if not in --model_dir");
ABSL_FLAG(std::string, vae, "", "Wan2.2_VAE.safetensors or Wan2.2_VAE.pth, if not in --model_dir");
ABSL_FLAG(std::string, vit, "",
          "vit.safetensors, the vision tower, if not in --model_dir; vit_model.* in the trunk wins");
ABSL_FLAG(std::string, vit_config, "", "config.json of the vision tower, if not beside it");
ABSL_FLAG(std::string, lancet_json, "", "lancet.json (name, sizes, preview colours), if not in --model_dir");

namespace lancet {

CheckpointPaths CheckpointPathsFromFlags() {
  CheckpointPaths paths;
  paths.model_dir = absl::GetFlag(FLAGS_model_dir);
  paths.trunk = absl::GetFlag(FLAGS_trunk);
  paths.trunk_meta = absl::GetFlag(FLAGS_trunk_meta);
  paths.llm_config = absl::GetFlag(FLAGS_llm_config);
  paths.vocab = absl::GetFlag(FLAGS_vocab);
  paths.merges = absl::GetFlag(FLAGS_merges);
  paths.tokenizer_config = absl::GetFlag(FLAGS_tokenizer_config);
  paths.vae = absl::GetFlag(FLAGS_vae);
  paths.vit = absl::GetFlag(FLAGS_vit);
  paths.vit_config = absl::GetFlag(FLAGS_vit_config);
  paths.lancet_json = absl::GetFlag(FLAGS_lancet_json);
  return paths;
}

}  // namespace lancet

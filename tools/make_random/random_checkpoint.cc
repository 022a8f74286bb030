#include "tools/make_random/random_checkpoint.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/thread_pool.h"
#include "tools/make_random/companion_files.h"
#include "tools/make_random/output_file.h"
#include "tools/make_random/random_tensors.h"
#include "tools/make_random/tensor_files.h"

namespace lancet {
namespace {

namespace fs = std::filesystem;

absl::Status MakeFolder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(folder.string(), ": cannot make the folder: ", error.message()));
}

}  // namespace

absl::Status WriteRandomCheckpoint(const std::string& folder, const RandomDims& dims,
                                   const RandomCheckpointOptions& options) {
  const fs::path root(folder);
  const fs::path trunk = root / "Lance_3B-NVFP4";
  const fs::path base = root / "Lance_3B";
  const fs::path vision = root / "Qwen2.5-VL-ViT";
  const fs::path trunk_file = trunk / "nvfp4_state_dict.safetensors";
  std::error_code error;
  if (fs::exists(trunk_file, error)) {
    return absl::AlreadyExistsError(absl::StrCat(trunk_file.string(), ": is there already"));
  }
  for (const fs::path& path : {trunk, base, vision}) LANCET_RETURN_IF_ERROR(MakeFolder(path));

  const RandomTokenizer tokenizer = MakeRandomTokenizer(dims);
  struct SmallFile {
    fs::path path;
    std::string text;
  };
  for (const SmallFile& file :
       {SmallFile{base / "llm_config.json", RandomLlmConfig(dims)},
        SmallFile{base / "vocab.json", tokenizer.vocab}, SmallFile{base / "merges.txt", tokenizer.merges},
        SmallFile{base / "tokenizer_config.json", tokenizer.config},
        SmallFile{trunk / "nvfp4_meta.json", RandomTrunkMeta(dims)},
        SmallFile{vision / "config.json", RandomVisionConfig(dims)}}) {
    LANCET_RETURN_IF_ERROR(WriteTextFile(file.path.string(), file.text));
  }
  ThreadPool pool(options.threads);
  LANCET_RETURN_IF_ERROR(WriteRandomTorchArchive((root / "Wan2.2_VAE.pth").string(),
                                                 RandomVaeTensors(dims, options.seed), pool));
  LANCET_RETURN_IF_ERROR(WriteRandomSafetensors((vision / "vit.safetensors").string(),
                                                RandomVisionTensors(dims, options.seed), pool));
  return WriteRandomSafetensors(trunk_file.string(), RandomTrunkTensors(dims, options.seed), pool);
}

int64_t RandomCheckpointBytes(const RandomDims& dims) {
  int64_t bytes = 0;
  for (const auto& tensors :
       {RandomTrunkTensors(dims, 0), RandomVisionTensors(dims, 0), RandomVaeTensors(dims, 0)}) {
    for (const RandomTensor& tensor : tensors) bytes += tensor.num_bytes();
  }
  return bytes;
}

}  // namespace lancet

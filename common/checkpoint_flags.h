// The flags that say where a checkpoint is, shared by every program that opens one:
//   --model_dir --trunk --trunk_meta --llm_config --vocab --merges --tokenizer_config --vae --vit
//   --vit_config
//   --lancet_json
#pragma once

#include "common/checkpoint.h"

namespace lancet {

// The flags as they are, unset ones empty: what ResolveCheckpoint takes. Call after absl::ParseCommandLine.
CheckpointPaths CheckpointPathsFromFlags();

}  // namespace lancet

// What checkpoint files hold, as numbers: gathered here, printed by report.h.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/checkpoint.h"
#include "common/state_dict.h"
#include "tools/inspect/scale_statistics.h"
#include "tools/inspect/tensor_kind.h"

namespace lancet {

struct TensorGroup {
  int64_t tensors = 0;
  int64_t bytes = 0;
  std::map<std::string, int64_t> dtypes;  // name -> tensors
};

struct TensorLine {
  std::string name;
  DType dtype = DType::kU8;
  Shape shape;
};

struct FileInspection {
  std::string path;
  int64_t bytes = 0;  // of tensor data
  std::map<TensorKind, TensorGroup> groups;
  std::vector<TensorLine> tensors;
  ScaleStatistics scales;  // linears == 0: the file holds no NVFP4
  std::string fingerprint;
};

// Memory that the weights of one rank need.
struct RankMemory {
  int world_size = 1;
  int64_t trunk_bytes =
      0;  // of the rank that holds most: its codes, bf16 scales and biases, and what is replicated
  int64_t vision_bytes = 0;  // of the rank that holds most, in bf16; 0 without a tower
};

struct CheckpointInspection {
  CheckpointPaths paths;
  ModelConfig config;
  ModelCard card;
  std::string fingerprint;
  std::map<std::string, int64_t> schemes;  // of nvfp4_meta.json: scheme -> linears; empty without that file
  FileInspection trunk;
  FileInspection vae;
  VaeLayout vae_layout;
  std::optional<VisionConfig> vision_config;
  std::optional<FileInspection> vision;  // the tower, whichever file its tensors are in
  int64_t vision_tensors_in_trunk = 0;
  std::vector<std::string> unexpected;  // names in trunk, autoencoder or tower that nothing will read
  std::vector<RankMemory> memory;       // for 1, 2 and 4 ranks
};

// `code_rows`: rows of each code matrix that are looked at.
// `meta`: of a trunk that has a meta file.
absl::StatusOr<FileInspection> InspectFile(const StateDict& dict, int64_t code_rows,
                                           const TrunkMeta& meta = {});
absl::StatusOr<CheckpointInspection> InspectCheckpoint(const Checkpoint& checkpoint, int64_t code_rows);

}  // namespace lancet

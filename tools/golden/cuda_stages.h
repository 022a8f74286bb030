// Single stages of the model on a CUDA device, for golden cases that are about one stage: the code that
// serves requests, driven without an engine.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/checkpoint.h"
#include "common/request_plan.h"
#include "common/rgb_image.h"
#include "common/tensor_view.h"
#include "worker/engine/engine.h"
#include "worker/model/vae/vae_encoder.h"
#include "worker/model/vision/vision_layout.h"

namespace lancet {

// One block of rows for layer 0 of the trunk, behind cached tokens.
struct StageLayerInput {
  enum class Block {
    kText,     // causal, through the und expert
    kAnswers,  // the same, one row a pass
    kVision,   // all rows see each other, through the und expert
    kLatents,  // likewise; all but the first and the last go through the gen expert
  };
  Block block = Block::kText;
  ConstMatrixView<bf16> x;  // [rows, hidden]
  Positions positions;
  ConstMatrixView<bf16> past_k;  // [past, kv heads * head_dim]
  ConstMatrixView<bf16> past_v;
};

// Rows in the order of the input.
struct StageLayerOutput {
  std::vector<bf16> q;  // empty for kAnswers, whose queries are rotated on their way into attention
  std::vector<bf16> k, v, attn, mid, out;
};

struct StageEncodedPicture {
  VaeMoments moments;
  std::vector<bf16> latents;  // normalised, without noise
};

struct StageRotaryRows {
  std::vector<bf16> cos, sin;  // [rows, head_dim / 2]
};

// Not thread-safe.
class CudaStages {
 public:
  virtual ~CudaStages() = default;

  // On device 0. Unimplemented in builds without CUDA; other errors as those of the runner.
  static absl::StatusOr<std::unique_ptr<CudaStages>> Create(const Checkpoint& checkpoint,
                                                            const EngineOptions& options);

  // Tokens of the vision tower, [patches / 4, hidden]. FailedPrecondition for a checkpoint without a tower.
  virtual absl::StatusOr<std::vector<bf16>> Features(ConstMatrixView<bf16> patches,
                                                     absl::Span<const VisionGrid> grids) = 0;
  // Pixels, planes [3, 16 height, 16 width]; latents: [height * width, 48].
  virtual absl::StatusOr<std::vector<float>> Decode(ConstMatrixView<float> latents, int64_t height,
                                                    int64_t width) = 0;
  virtual absl::StatusOr<StageEncodedPicture> Encode(const RgbImage& image) = 0;
  // [times, hidden].
  virtual absl::StatusOr<std::vector<bf16>> TimeRows(absl::Span<const float> times) = 0;
  virtual absl::StatusOr<StageRotaryRows> RotaryRows(const Positions& positions) = 0;
  // The weights of an NVFP4 Linear as products of many rows see them.
  virtual absl::StatusOr<std::vector<bf16>> ExpandNvfp4(ConstMatrixView<uint8_t> codes,
                                                        ConstMatrixView<bf16> scales) = 0;
  virtual absl::StatusOr<StageLayerOutput> Layer(const StageLayerInput& input) = 0;
};

}  // namespace lancet

#include "worker/cuda/cuda_vision_weights.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "kernels/cuda/few_rows_linear.h"
#include "worker/model/vision/vision_tensors.h"

namespace lancet {
namespace {

constexpr absl::Duration kUploadTimeout = absl::Seconds(60);
constexpr int64_t kInnerUnit = 16;

class Uploader {
 public:
  Uploader(const CudaContext& ctx, const StateDict& tower) : ctx_(ctx), tower_(tower) {}

  absl::StatusOr<DeviceArray<bf16>> Upload(const std::vector<bf16>& values) const {
    LANCET_ASSIGN_OR_RETURN(DeviceArray<bf16> array, DeviceArray<bf16>::CopyOf(values, ctx_.stream()));
    LANCET_RETURN_IF_ERROR(ctx_.Wait(kUploadTimeout));
    return array;
  }

  absl::StatusOr<DeviceArray<bf16>> Vector(const std::string& name, int64_t size) const {
    LANCET_ASSIGN_OR_RETURN(const std::vector<bf16> values, ReadVisionTensor(tower_, name, size));
    return Upload(values);
  }

  absl::StatusOr<CudaDense> Linear(const std::string& base, int64_t rows, int64_t cols) const {
    CudaDense dense;
    dense.rows = rows;
    dense.cols = cols;
    LANCET_ASSIGN_OR_RETURN(dense.weight, Vector(base + ".weight", rows * cols));
    LANCET_ASSIGN_OR_RETURN(dense.bias, Vector(base + ".bias", rows));
    return dense;
  }

  // gate_proj and up_proj, each filled up with rows of zeros, in turns of kGateUpTurn rows as SiluMul reads
  // them.
  absl::StatusOr<CudaDense> GateUp(const std::string& prefix, int64_t rows, int64_t filled,
                                   int64_t cols) const {
    std::vector<bf16> weight(2 * filled * cols);
    std::vector<bf16> bias(2 * filled);
    int64_t part = 0;
    for (const char* linear : {"gate_proj", "up_proj"}) {
      const std::string base = prefix + linear;
      LANCET_ASSIGN_OR_RETURN(const std::vector<bf16> own_weight,
                              ReadVisionTensor(tower_, base + ".weight", rows * cols));
      LANCET_ASSIGN_OR_RETURN(const std::vector<bf16> own_bias,
                              ReadVisionTensor(tower_, base + ".bias", rows));
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t to = (r / cuda::kGateUpTurn * 2 + part) * cuda::kGateUpTurn + r % cuda::kGateUpTurn;
        std::copy_n(own_weight.begin() + r * cols, cols, weight.begin() + to * cols);
        bias[to] = own_bias[r];
      }
      ++part;
    }
    CudaDense dense;
    dense.rows = 2 * filled;
    dense.cols = cols;
    LANCET_ASSIGN_OR_RETURN(dense.weight, Upload(weight));
    LANCET_ASSIGN_OR_RETURN(dense.bias, Upload(bias));
    return dense;
  }

  // down_proj with columns of zeros behind its own.
  absl::StatusOr<CudaDense> Down(const std::string& base, int64_t rows, int64_t cols, int64_t filled) const {
    LANCET_ASSIGN_OR_RETURN(const std::vector<bf16> own,
                            ReadVisionTensor(tower_, base + ".weight", rows * cols));
    std::vector<bf16> weight(rows * filled);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(own.begin() + r * cols, cols, weight.begin() + r * filled);
    }
    CudaDense dense;
    dense.rows = rows;
    dense.cols = filled;
    LANCET_ASSIGN_OR_RETURN(dense.weight, Upload(weight));
    LANCET_ASSIGN_OR_RETURN(dense.bias, Vector(base + ".bias", rows));
    return dense;
  }

 private:
  const CudaContext& ctx_;
  const StateDict& tower_;
};

}  // namespace

absl::StatusOr<CudaVisionWeights> CudaVisionWeights::Load(const CudaContext& ctx, const StateDict& tower,
                                                          const VisionConfig& config) {
  const Uploader uploader(ctx, tower);
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t merged = config.merged_size();
  CudaVisionWeights w;
  w.inner = (inner + kInnerUnit - 1) / kInnerUnit * kInnerUnit;
  w.patch_embed.rows = hidden;
  w.patch_embed.cols = config.patch_values();
  LANCET_ASSIGN_OR_RETURN(w.patch_embed.weight,
                          uploader.Vector("patch_embed.proj.weight", hidden * config.patch_values()));
  for (int64_t i = 0; i < config.depth; ++i) {
    const std::string prefix = absl::StrCat("blocks.", i, ".");
    CudaVisionBlock block;
    LANCET_ASSIGN_OR_RETURN(block.norm1, uploader.Vector(prefix + "norm1.weight", hidden));
    LANCET_ASSIGN_OR_RETURN(block.norm2, uploader.Vector(prefix + "norm2.weight", hidden));
    LANCET_ASSIGN_OR_RETURN(block.qkv, uploader.Linear(prefix + "attn.qkv", 3 * hidden, hidden));
    LANCET_ASSIGN_OR_RETURN(block.proj, uploader.Linear(prefix + "attn.proj", hidden, hidden));
    LANCET_ASSIGN_OR_RETURN(block.gate_up, uploader.GateUp(prefix + "mlp.", inner, w.inner, hidden));
    LANCET_ASSIGN_OR_RETURN(block.down, uploader.Down(prefix + "mlp.down_proj", hidden, inner, w.inner));
    w.blocks.push_back(std::move(block));
  }
  LANCET_ASSIGN_OR_RETURN(w.merger_norm, uploader.Vector("merger.ln_q.weight", hidden));
  LANCET_ASSIGN_OR_RETURN(w.merger_in, uploader.Linear("merger.mlp.0", merged, merged));
  LANCET_ASSIGN_OR_RETURN(w.merger_out, uploader.Linear("merger.mlp.2", config.out_hidden_size, merged));
  return w;
}

}  // namespace lancet

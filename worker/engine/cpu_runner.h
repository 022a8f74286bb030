// The model of one rank on the CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/checkpoint.h"
#include "common/model_config.h"
#include "kernels/kernel_context.h"
#include "worker/engine/answer.h"
#include "worker/engine/cpu_request.h"
#include "worker/engine/engine.h"
#include "worker/engine/model_runner.h"
#include "worker/model/latent_embedding.h"
#include "worker/model/pass.h"
#include "worker/model/transformer.h"
#include "worker/model/vae/vae_decoder.h"
#include "worker/model/vae/vae_encoder.h"
#include "worker/model/vision/vision_encoder.h"

namespace lancet {

class CpuRunner final : public ModelRunner {
 public:
  // Loads this rank's shard of every weight. The checkpoint may go away afterwards.
  static absl::StatusOr<std::unique_ptr<CpuRunner>> Load(const Checkpoint& checkpoint,
                                                         const EngineOptions& options);

  std::string device() const override { return ctx_->description(); }
  size_t collective_capacity() const override;
  const ModelLimits& limits() const override { return limits_; }
  absl::Status Attach(Collective* collective) override;
  absl::StatusOr<std::unique_ptr<ModelRequest>> Admit(const RequestPlan& plan) override;
  absl::Status EncodeVision(ModelRequest& request) override;
  absl::Status EncodeLatents(ModelRequest& request) override;
  absl::Status RunPass(absl::Span<const PassItem> items, absl::Span<WorkResult> results) override;
  absl::StatusOr<std::optional<RgbImage>> Decode(ModelRequest& request) override;
  void set_trace(EngineTrace* trace) override;

 private:
  // Where an item's rows lie in the stream: und rows from `und` on, gen rows from `gen` on, for one cache
  // after the other.
  struct Placed {
    CpuRequest* request = nullptr;
    Work work;
    int64_t und = 0;
    int64_t gen = 0;      // counted from the first gen row of the pass
    int64_t rows = 0;     // of one cache's block
    int copies = 1;       // caches
    bool guided = false;  // kDenoise: both velocities
  };

  explicit CpuRunner(const EngineOptions& options) : options_(options) {}

  Placed Place(const PassItem& item, Pass& pass) const;
  absl::Status Embed(const Placed& placed, int64_t first_gen);
  void EmbedTokens(absl::Span<const int32_t> ids, MatrixView<bf16> out) const;
  // vae2llm(latents) + time + position.
  absl::Status EmbedLatentRows(ConstMatrixView<bf16> latents, int64_t latent_width, float t,
                               MatrixView<bf16> out);
  // One step of the sampler from the rows of a pass; leaves a preview in `result`.
  absl::Status Step(const Placed& placed, int64_t first_gen, WorkResult& result);
  // llm2vae(norm(rows)) of gen rows.
  absl::Status Velocity(MatrixView<bf16> rows, MatrixView<bf16> velocity);
  // The next token of every answer in the pass.
  absl::Status PickTokens(absl::Span<const Placed> placed, absl::Span<WorkResult> results);
  absl::StatusOr<RgbImage> MakePreview(const CpuRequest& request, PreviewMethod method,
                                       const std::vector<float>& clean);
  void TraceCaches(const CpuRequest& request);

  const EngineOptions options_;
  ModelConfig config_;
  ModelLimits limits_;
  std::unique_ptr<KernelContext> ctx_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<VisionEncoder> vision_;    // null without a tower
  std::unique_ptr<VaeDecoder> vae_;          // rank 0 only
  std::unique_ptr<VaeEncoder> vae_encoder_;  // rank 0 only
  std::optional<LatentRgb> latent_rgb_;      // rank 0 only
  std::optional<LatentPositionTable> positions_;

  Collective* collective_ = nullptr;
  EngineTrace* trace_ = nullptr;
  std::vector<bf16> normed_;    // [max_latents, hidden]
  std::vector<bf16> velocity_;  // [2, max_latents, 48]: conditional, unconditional
  std::vector<bf16> logits_;    // [rows scored at once, the rank's share of the vocabulary]
};

}  // namespace lancet

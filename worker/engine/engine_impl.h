// The engine behind worker/engine/engine.h.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "kernels/kernel_context.h"
#include "worker/engine/engine.h"
#include "worker/engine/engine_trace.h"
#include "worker/engine/request_run.h"
#include "worker/model/latent_embedding.h"
#include "worker/model/transformer.h"
#include "worker/model/vae/vae_decoder.h"

namespace lancet {

class EngineImpl final : public Engine {
 public:
  struct Parts {
    EngineOptions options;
    ModelConfig config;
    std::unique_ptr<KernelContext> ctx;
    std::unique_ptr<Transformer> transformer;
    std::unique_ptr<VaeDecoder> vae;      // rank 0 only
    std::optional<LatentRgb> latent_rgb;  // rank 0 only
  };
  explicit EngineImpl(Parts parts);

  size_t collective_capacity() const override;
  std::string device() const override;
  absl::Status Attach(Collective* collective) override;
  absl::Status WarmUp() override;
  absl::Status Admit(const RequestPlan& plan) override;
  absl::StatusOr<std::vector<WorkResult>> Iterate(const std::vector<Work>& work) override;
  absl::Status Release(uint64_t request_id) override;
  void set_trace(EngineTrace* trace) override { trace_ = trace; }

 private:
  absl::StatusOr<WorkResult> Execute(const Work& work);
  absl::Status Prefill(RequestRun& run, int32_t index);
  absl::Status Denoise(RequestRun& run, int32_t step, PreviewMethod preview, WorkResult& result);
  absl::Status Decode(RequestRun& run, WorkResult& result);
  // Fills rows of the stream with the embeddings of text tokens.
  void EmbedTokens(const int32_t* ids, int64_t count, MatrixView<bf16> out) const;
  // Fills the und and gen rows of one target block.
  absl::Status EmbedTarget(RequestRun& run, float t, MatrixView<bf16> markers, MatrixView<bf16> latents);
  // llm2vae(norm(rows)) of gen rows of the stream.
  absl::Status Velocity(MatrixView<bf16> rows, MatrixView<bf16> velocity);
  absl::StatusOr<RgbImage> MakePreview(const RequestRun& run, PreviewMethod method,
                                       const std::vector<float>& clean);

  const EngineOptions options_;
  const ModelConfig config_;
  const std::unique_ptr<KernelContext> ctx_;
  const std::unique_ptr<Transformer> transformer_;
  const std::unique_ptr<VaeDecoder> vae_;
  const std::optional<LatentRgb> latent_rgb_;
  const LatentPositionTable positions_;

  Collective* collective_ = nullptr;
  EngineTrace* trace_ = nullptr;
  std::map<uint64_t, std::unique_ptr<RequestRun>> requests_;
  std::vector<bf16> normed_;    // [max_latents, hidden]
  std::vector<bf16> velocity_;  // [2, max_latents, 48]: conditional, unconditional
};

}  // namespace lancet

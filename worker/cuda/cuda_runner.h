// The model of one rank on a CUDA device, behind worker/engine/cuda_runner.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/checkpoint.h"
#include "common/model_config.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/host_array.h"
#include "kernels/cuda/sampler_ops.h"
#include "kernels/kernel_context.h"
#include "worker/collective/device/device_collective.h"
#include "worker/cuda/cuda_graphs.h"
#include "worker/cuda/cuda_pass.h"
#include "worker/cuda/cuda_request.h"
#include "worker/cuda/cuda_trunk.h"
#include "worker/cuda/cuda_vae_decoder.h"
#include "worker/cuda/cuda_vae_encoder.h"
#include "worker/cuda/cuda_vae_layers.h"
#include "worker/cuda/cuda_vision_encoder.h"
#include "worker/engine/answer.h"
#include "worker/engine/engine.h"
#include "worker/engine/model_runner.h"

namespace lancet {

class CudaRunner final : public ModelRunner {
 public:
  static absl::StatusOr<std::unique_ptr<CudaRunner>> Load(const Checkpoint& checkpoint,
                                                          const EngineOptions& options);

  std::string device() const override { return ctx_->description(); }
  size_t collective_capacity() const override;
  const ModelLimits& limits() const override { return limits_; }
  // Rows of text are multiplied by other kernels than single rows.
  bool answered_row_by_row() const override { return true; }
  absl::Status Attach(Collective* collective) override;
  absl::StatusOr<std::unique_ptr<ModelRequest>> Admit(const RequestPlan& plan) override;
  absl::Status EncodeVision(ModelRequest& request) override;
  absl::Status EncodeLatents(ModelRequest& request) override;
  absl::Status RunPass(absl::Span<const PassItem> items, absl::Span<WorkResult> results) override;
  absl::StatusOr<std::optional<RgbImage>> Decode(ModelRequest& request) override;
  void set_trace(EngineTrace* trace) override { trace_ = trace; }

 private:
  // Where an item's rows lie: few and many rows within their sections, gen rows from the first gen row on.
  struct Placed {
    CudaRequest* request = nullptr;
    Work work;
    int64_t few = 0;
    int64_t many = 0;
    int64_t gen = 0;
    int64_t gen_rows = 0;  // of one copy
    int copies = 1;        // caches
    bool guided = false;   // kDenoise: both velocities
    int64_t picture = 0;   // number among the items that have gen rows
  };
  explicit CudaRunner(const EngineOptions& options) : options_(options) {}

  // A new epoch of the devices of a group.
  absl::Status JoinGroup();
  absl::StatusOr<Placed> Place(const PassItem& item, CudaPass& pass);
  // Token ids of the und rows, in the order of the stream.
  std::vector<int32_t> TokenIds(absl::Span<const Placed> placed, const CudaPass& pass) const;
  // Enqueues latents, and features of pictures, into the stream.
  absl::Status EmbedPictures(absl::Span<const Placed> placed, const CudaPass& pass);
  absl::Status Fork(CudaRequest& request);
  // What the steps of these items have of their own, in the order of Placed::picture.
  std::vector<cuda::StepScalars> Scalars(absl::Span<const Placed> placed);
  // All launches of a prepared pass; previews are left out.
  absl::Status Enqueue(const CudaPass& pass, absl::Span<const Placed> placed, int64_t answers);
  // What decides those launches.
  CudaGraphs::Key GraphKey(absl::Span<const Placed> placed) const;
  // Logits and greedy choices of `count` answers whose rows are the first of the stream; ids go to picked_.
  absl::Status EnqueueAnswers(int64_t count);
  // The same where answers share a pass with other work.
  absl::Status EnqueueMixedAnswers(absl::Span<const Placed> placed);
  absl::Status EnqueueStep(const Placed& placed);
  absl::Status Preview(const Placed& placed, WorkResult& result);
  absl::Status TakeSnapshot(const Placed& placed, WorkResult& result);
  absl::Status TraceVelocity(const Placed& placed, bool conditional, const bf16* velocity);
  // How many of this rank's part of the vocabulary may be picked.
  int64_t ValidShare() const;
  // Of each choice the best over the ranks.
  absl::StatusOr<std::vector<TokenChoice>> BestOfRanks(std::vector<TokenChoice> mine);
  absl::Status ReadAnswers(absl::Span<const Placed> placed, absl::Span<WorkResult> results);
  // Of the estimate in preview_.
  absl::StatusOr<std::optional<RgbImage>> MakePreview(const CudaRequest& request, PreviewMethod method);
  // What is in preview_, decoded by all ranks; nothing on others than rank 0.
  absl::StatusOr<std::optional<RgbImage>> DecodeEstimate(const TargetBlock& target);

  absl::Status TraceCaches(const CudaRequest& request);
  absl::Status TraceRows(const bf16* device, int64_t values, std::vector<bf16>& host);

  const EngineOptions options_;
  ModelConfig config_;
  ModelConfig shard_;  // what this rank owns of it
  int ordinal_ = 0;    // of the device
  ModelLimits limits_;
  std::unique_ptr<CudaContext> ctx_;
  std::unique_ptr<KernelContext> cpu_;
  std::unique_ptr<CudaTrunk> trunk_;
  std::unique_ptr<CudaVaeLayers> vae_layers_;
  std::unique_ptr<CudaVaeDecoder> vae_;
  std::unique_ptr<CudaVaeEncoder> vae_encoder_;  // null without a tower
  std::unique_ptr<CudaVisionEncoder> vision_;    // null without a tower
  std::optional<LatentRgb> latent_rgb_;
  DeviceArray<bf16> table_, table_w_;
  cuda::PositionTable positions_;

  Collective* collective_ = nullptr;
  std::unique_ptr<DeviceCollective> group_;  // null in a group of one
  EngineTrace* trace_ = nullptr;
  DeviceArray<bf16> normed_;    // [max_rows, hidden]
  DeviceArray<bf16> velocity_;  // [max_rows, 48], by gen row
  DeviceArray<float> preview_;  // [max_latents, 48]
  DeviceArray<double> norms_;
  DeviceArray<bf16> logits_;  // [max_requests, the rank's part of the vocabulary]
  DeviceArray<cuda::ArgmaxPair> best_;
  DeviceArray<int32_t> picked_;  // [max_requests]
  DeviceArray<float> scores_;    // [max_requests]
  HostArray<int32_t> host_picked_;
  HostArray<float> host_scores_;
  int32_t valid_tokens_ = 0;  // of the answers that are picked on the device
  std::optional<CudaGraphs> graphs_;
};

}  // namespace lancet

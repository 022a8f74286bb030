#include "tools/golden/cuda_stages.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/expand_weights.h"
#include "kernels/cuda/rope_table.h"
#include "kernels/kernel_context.h"
#include "kernels/vae_ops.h"
#include "worker/cuda/cuda_kv_cache.h"
#include "worker/cuda/cuda_pass.h"
#include "worker/cuda/cuda_time_embedding.h"
#include "worker/cuda/cuda_trunk.h"
#include "worker/cuda/cuda_vae_decoder.h"
#include "worker/cuda/cuda_vae_encoder.h"
#include "worker/cuda/cuda_vae_layers.h"
#include "worker/cuda/cuda_vision_encoder.h"
#include "worker/loader/shard_plan.h"
#include "worker/model/rope_table.h"

namespace lancet {
namespace {

constexpr absl::Duration kTimeout = absl::Minutes(1);
// Larger than any golden's block of a single layer.
constexpr int64_t kMaxRows = 256;

class Stages final : public CudaStages {
 public:
  static absl::StatusOr<std::unique_ptr<CudaStages>> Create(const Checkpoint& checkpoint,
                                                            const EngineOptions& options) {
    auto stages = std::make_unique<Stages>();
    ModelConfig& config = stages->config_;
    config = checkpoint.config();
    config.num_layers = 1;  // goldens of single layers are of the first
    LANCET_ASSIGN_OR_RETURN(stages->ctx_, CudaContext::Create(0));
    const CudaContext& ctx = *stages->ctx_;
    LANCET_ASSIGN_OR_RETURN(stages->cpu_, KernelContext::CreateCpu({}));
    const LinearMode mode = options.linears.mode;
    const CudaProducts products = mode == LinearMode::kW4A8Fp8 ? CudaProducts::kFp8
                                  : mode == LinearMode::kW4A4  ? CudaProducts::kNvfp4
                                                               : CudaProducts::kBf16;
    LANCET_ASSIGN_OR_RETURN(const LinearPolicy policy, LinearPolicy::Create(checkpoint, options.linears));
    LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(config, 0, 1));
    LANCET_ASSIGN_OR_RETURN(CudaTrunkWeights weights,
                            CudaTrunkWeights::Load(ctx, checkpoint.trunk(), config, plan, products,
                                                   /*with_head=*/false, policy));
    LANCET_ASSIGN_OR_RETURN(stages->trunk_, CudaTrunk::Create(ctx, config, std::move(weights), products,
                                                              kMaxRows, /*max_blocks=*/4));
    MatmulPlans& matmul = stages->trunk_->matmul();
    if (checkpoint.vision() != nullptr) {
      LANCET_ASSIGN_OR_RETURN(stages->vision_,
                              CudaVisionEncoder::Load(ctx, matmul, *checkpoint.vision(),
                                                      *checkpoint.vision_config(), options.max_patches));
    }
    stages->vae_layers_ = std::make_unique<CudaVaeLayers>(ctx, matmul);
    VaeDecoderOptions decoder;
    decoder.max_latents = options.max_latents;
    LANCET_ASSIGN_OR_RETURN(stages->decoder_,
                            CudaVaeDecoder::Load(ctx, *stages->vae_layers_, checkpoint.vae(), decoder));
    VaeEncoderOptions encoder;
    encoder.max_latents = options.max_latents;
    LANCET_ASSIGN_OR_RETURN(stages->encoder_,
                            CudaVaeEncoder::Load(ctx, *stages->vae_layers_, checkpoint.vae(), encoder));
    return stages;
  }

  absl::StatusOr<std::vector<bf16>> Features(ConstMatrixView<bf16> patches,
                                             absl::Span<const VisionGrid> grids) override {
    if (vision_ == nullptr) return absl::FailedPreconditionError("the checkpoint has no vision tower");
    const VisionConfig& config = vision_->config();
    LANCET_ASSIGN_OR_RETURN(const auto out, DeviceArray<bf16>::Create(patches.rows / config.cell_patches() *
                                                                      config.out_hidden_size));
    LANCET_RETURN_IF_ERROR(vision_->Encode(patches, grids, out.data()));
    return Read(out);
  }

  absl::StatusOr<std::vector<float>> Decode(ConstMatrixView<float> latents, int64_t height,
                                            int64_t width) override {
    return decoder_->Decode(*cpu_, latents, height, width);
  }

  absl::StatusOr<StageEncodedPicture> Encode(const RgbImage& image) override {
    StageEncodedPicture encoded;
    const int64_t rows = image.width / kPixelsPerLatent * (image.height / kPixelsPerLatent);
    LANCET_ASSIGN_OR_RETURN(const auto latents, DeviceArray<bf16>::Create(rows * kLatentChannels));
    LANCET_RETURN_IF_ERROR(encoder_->EncodePicture(image, {}, latents.data()));
    LANCET_ASSIGN_OR_RETURN(encoded.latents, Read(latents));
    LANCET_ASSIGN_OR_RETURN(const std::vector<float> pixels, ImageToPixels(image));
    LANCET_ASSIGN_OR_RETURN(encoded.moments, encoder_->Moments(*cpu_, pixels, image.height, image.width));
    return encoded;
  }

  absl::StatusOr<std::vector<bf16>> TimeRows(absl::Span<const float> times) override {
    LANCET_ASSIGN_OR_RETURN(const auto rows, EmbedTimes(*ctx_, trunk_->weights(), times, kTimeout));
    return Read(rows);
  }

  absl::StatusOr<StageRotaryRows> RotaryRows(const Positions& positions) override {
    const std::vector<float> frequencies = RopeTable(config_).inverse_frequencies();
    const auto rows = static_cast<int64_t>(positions.t.size());
    const auto n = static_cast<int64_t>(frequencies.size());
    LANCET_ASSIGN_OR_RETURN(const auto t, DeviceArray<int32_t>::CopyOf(positions.t, ctx_->stream()));
    LANCET_ASSIGN_OR_RETURN(const auto h, DeviceArray<int32_t>::CopyOf(positions.h, ctx_->stream()));
    LANCET_ASSIGN_OR_RETURN(const auto w, DeviceArray<int32_t>::CopyOf(positions.w, ctx_->stream()));
    LANCET_ASSIGN_OR_RETURN(const auto f, DeviceArray<float>::CopyOf(frequencies, ctx_->stream()));
    LANCET_ASSIGN_OR_RETURN(const auto cos, DeviceArray<bf16>::Create(rows * n));
    LANCET_ASSIGN_OR_RETURN(const auto sin, DeviceArray<bf16>::Create(rows * n));
    cuda::RopeTableArgs args;
    args.t = t.data();
    args.h = h.data();
    args.w = w.data();
    args.rows = rows;
    args.inverse_frequency = f.data();
    args.frequencies = static_cast<int>(n);
    args.t_section = config_.mrope_section[0];
    args.h_section = config_.mrope_section[1];
    args.cos = cos.data();
    args.sin = sin.data();
    LANCET_CUDA_RETURN_IF_ERROR(cuda::FillRopeTable(args, ctx_->stream()));
    StageRotaryRows result;
    LANCET_ASSIGN_OR_RETURN(result.cos, Read(cos));
    LANCET_ASSIGN_OR_RETURN(result.sin, Read(sin));
    return result;
  }

  absl::StatusOr<std::vector<bf16>> ExpandNvfp4(ConstMatrixView<uint8_t> codes,
                                                ConstMatrixView<bf16> scales) override {
    const absl::Span<const uint8_t> bytes(codes.data, codes.rows * codes.cols);
    const absl::Span<const bf16> factors(scales.data, scales.rows * scales.cols);
    LANCET_ASSIGN_OR_RETURN(const auto device_codes, DeviceArray<uint8_t>::CopyOf(bytes, ctx_->stream()));
    LANCET_ASSIGN_OR_RETURN(const auto device_scales, DeviceArray<bf16>::CopyOf(factors, ctx_->stream()));
    const int64_t cols = 2 * codes.cols;
    LANCET_ASSIGN_OR_RETURN(const auto out, DeviceArray<bf16>::Create(codes.rows * cols));
    LANCET_CUDA_RETURN_IF_ERROR(cuda::ExpandToBf16(device_codes.data(), device_scales.data(), codes.rows,
                                                   cols, out.data(), cols, ctx_->stream()));
    return Read(out);
  }

  absl::StatusOr<StageLayerOutput> Layer(const StageLayerInput& input) override {
    const int64_t rows = input.x.rows;
    const int64_t past = input.past_k.rows;
    const int64_t kv_cols = config_.num_kv_heads * config_.head_dim;
    LANCET_ASSIGN_OR_RETURN(CudaKvCache cache, CudaKvCache::Create(config_.num_layers, past + rows, kv_cols));
    const auto upload = [&](ConstMatrixView<bf16> host, bf16* to) {
      return CudaStatus(cudaMemcpyAsync(to, host.data, static_cast<size_t>(past * kv_cols) * sizeof(bf16),
                                        cudaMemcpyHostToDevice, ctx_->stream()),
                        "copy into a cache");
    };
    LANCET_RETURN_IF_ERROR(upload(input.past_k, cache.data()));
    LANCET_RETURN_IF_ERROR(upload(input.past_v, cache.data() + cache.v_offset()));
    cache.Advance(past);
    StageLayerOutput output;
    if (input.block == StageLayerInput::Block::kAnswers) {
      for (int64_t i = 0; i < rows; ++i) {
        CudaPass pass;
        pass.AddAnswer(&cache, input.positions.t[i]);
        LANCET_RETURN_IF_ERROR(RunPass(pass, input, {i}, output));
        pass.AdvanceCaches();
      }
    } else {
      CudaPass pass;
      // Where the rows of the pass come from.
      std::vector<int64_t> order;
      for (int64_t i = 0; i < rows; ++i) order.push_back(i);
      switch (input.block) {
        case StageLayerInput::Block::kVision:
          pass.AddVision(&cache, input.positions);
          break;
        case StageLayerInput::Block::kLatents:
          pass.AddLatents(&cache, input.positions, /*append=*/false);
          // Both markers come first.
          std::rotate(order.begin() + 1, order.end() - 1, order.end());
          break;
        default:
          pass.AddText(&cache, input.positions, 0, rows);
      }
      LANCET_RETURN_IF_ERROR(RunPass(pass, input, order, output));
    }
    const int64_t fresh = rows * kv_cols;
    LANCET_RETURN_IF_ERROR(ReadFrom(cache.data() + past * kv_cols, fresh, output.k));
    LANCET_RETURN_IF_ERROR(ReadFrom(cache.data() + cache.v_offset() + past * kv_cols, fresh, output.v));
    return output;
  }

 private:
  absl::Status ReadFrom(const bf16* device, int64_t values, std::vector<bf16>& host) const {
    host.resize(values);
    LANCET_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(host.data(), device,
                                                static_cast<size_t>(values) * sizeof(bf16),
                                                cudaMemcpyDeviceToHost, ctx_->stream()));
    return ctx_->Wait(kTimeout);
  }
  absl::StatusOr<std::vector<bf16>> Read(const DeviceArray<bf16>& array) const {
    std::vector<bf16> host;
    LANCET_RETURN_IF_ERROR(ReadFrom(array.data(), array.size(), host));
    return host;
  }

  // Runs the layer over input rows `order` and puts what it computed into their places.
  absl::Status RunPass(const CudaPass& pass, const StageLayerInput& input, const std::vector<int64_t>& order,
                       StageLayerOutput& output) {
    const int64_t hidden = config_.hidden_size;
    const int64_t q_cols = config_.num_heads * config_.head_dim;
    const int64_t qkv_cols = q_cols + 2 * config_.num_kv_heads * config_.head_dim;
    std::vector<bf16> x;
    for (const int64_t i : order) x.insert(x.end(), input.x.row(i), input.x.row(i) + hidden);
    LANCET_RETURN_IF_ERROR(trunk_->Prepare(pass, CudaPassInputs{}, kTimeout));
    LANCET_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(trunk_->stream_rows(), x.data(), x.size() * sizeof(bf16),
                                                cudaMemcpyHostToDevice, ctx_->stream()));
    CudaLayerTrace trace;
    trunk_->set_trace(&trace);
    const absl::Status ran = trunk_->Forward(pass);
    trunk_->set_trace(nullptr);
    LANCET_RETURN_IF_ERROR(ran);
    std::vector<bf16> out;
    LANCET_RETURN_IF_ERROR(ReadFrom(trunk_->stream_rows(), static_cast<int64_t>(x.size()), out));
    const auto place = [&](const std::vector<bf16>& from, int64_t stride, int64_t cols,
                           std::vector<bf16>& to) {
      to.resize(input.x.rows * cols);
      for (size_t i = 0; i < order.size(); ++i) {
        std::copy_n(from.begin() + static_cast<int64_t>(i) * stride, cols, to.begin() + order[i] * cols);
      }
    };
    if (input.block != StageLayerInput::Block::kAnswers) place(trace.qkv, qkv_cols, q_cols, output.q);
    place(trace.attn, q_cols, q_cols, output.attn);
    place(trace.mid, hidden, hidden, output.mid);
    place(out, hidden, hidden, output.out);
    return absl::OkStatus();
  }

  ModelConfig config_;
  std::unique_ptr<CudaContext> ctx_;
  std::unique_ptr<KernelContext> cpu_;
  std::unique_ptr<CudaTrunk> trunk_;
  std::unique_ptr<CudaVisionEncoder> vision_;
  std::unique_ptr<CudaVaeLayers> vae_layers_;
  std::unique_ptr<CudaVaeDecoder> decoder_;
  std::unique_ptr<CudaVaeEncoder> encoder_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaStages>> CudaStages::Create(const Checkpoint& checkpoint,
                                                               const EngineOptions& options) {
  return Stages::Create(checkpoint, options);
}

}  // namespace lancet

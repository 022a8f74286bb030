// The decoder's graph. Three buffers serve all maps: `input` (a stage's input, kept for the stage shortcut),
// `spare` (inner maps, then the stage's output) and `current` (the residual stream of the stage); input and
// spare change places after each stage.

#include "worker/model/vae/vae_decoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/model_config.h"
#include "common/status_macros.h"
#include "kernels/conv.h"
#include "kernels/feature_map.h"
#include "kernels/spatial_attention.h"
#include "kernels/vae_ops.h"
#include "worker/model/vae/latent_statistics.h"
#include "worker/model/vae/vae_layers.h"
#include "worker/model/vae/vae_weights.h"

namespace lancet {
namespace {

class Decoder final : public VaeDecoder {
 public:
  Decoder(VaeDecoderWeights weights, SpatialAttention attention, VaeDecoderOptions options)
      : options_(std::move(options)), weights_(std::move(weights)), layers_(std::move(attention)) {}

  absl::Status ReserveBuffers() {
    // Elements per latent that each buffer needs, by walking the graph as Decode does.
    int64_t need[3] = {};
    const auto use = [&](int buffer, int64_t channels, int64_t pixels_per_latent) {
      need[buffer] = std::max(need[buffer], channels * pixels_per_latent);
    };
    const int64_t middle = weights_.middle_channels();
    use(input_, middle, 1);
    use(spare_, std::max(latent_channels(), middle), 1);
    use(kCurrent, std::max(latent_channels(), 3 * middle), 1);
    int input = input_;
    int spare = spare_;
    int64_t scale = 1;
    for (const VaeStage& stage : weights_.stages) {
      use(spare, stage.out_channels(), scale);
      use(kCurrent, stage.out_channels(), scale);
      if (!stage.resample.has_value()) continue;
      scale *= 4;
      use(spare, stage.out_channels(), scale);
      std::swap(input, spare);
    }
    use(spare, weights_.head.shape().out_channels, scale);
    for (int i = 0; i < 3; ++i) {
      LANCET_RETURN_IF_ERROR(
          buffers_[i].Reserve(need[i] * options_.max_latents * static_cast<int64_t>(sizeof(bf16))));
    }
    return absl::OkStatus();
  }

  int64_t latent_channels() const override { return weights_.latent_channels(); }
  int64_t max_latents() const override { return options_.max_latents; }

  absl::StatusOr<std::vector<float>> Decode(const KernelContext& ctx, ConstMatrixView<float> latents,
                                            int64_t height, int64_t width) override {
    if (height < 1 || width < 1 || height > options_.max_latents || width > options_.max_latents ||
        height * width > options_.max_latents) {
      return absl::InvalidArgumentError(absl::StrCat(
          "VAE decode: ", height, " x ", width, " latents; expected 1 to ", options_.max_latents, " in all"));
    }
    if (latents.rows != height * width || latents.cols != latent_channels()) {
      return absl::InvalidArgumentError(absl::StrCat("VAE decode: latents are [", latents.rows, ", ",
                                                     latents.cols, "]; expected [", height * width, ", ",
                                                     latent_channels(), "]"));
    }
    input_ = 0;
    spare_ = 1;
    MapView<bf16> x = Map(input_, height, width, weights_.middle_channels());
    LANCET_RETURN_IF_ERROR(Enter(latents, x));
    LANCET_RETURN_IF_ERROR(Residual(ctx, weights_.middle_in, x, x));
    LANCET_RETURN_IF_ERROR(Attend(ctx, x));
    LANCET_RETURN_IF_ERROR(Residual(ctx, weights_.middle_out, x, x));
    for (VaeStage& stage : weights_.stages) {
      LANCET_ASSIGN_OR_RETURN(x, Stage(ctx, stage, x));
    }
    return Leave(ctx, x);
  }

 private:
  static constexpr int kCurrent = 2;

  MapView<bf16> Map(int buffer, int64_t height, int64_t width, int64_t channels) const {
    return buffers_[buffer].Map(height, width, channels);
  }

  // De-normalised latents through the two convolutions in front. x: in input_.
  absl::Status Enter(ConstMatrixView<float> latents, MapView<bf16> x) {
    const int64_t channels = latent_channels();
    const MapView<bf16> z = Map(spare_, x.height, x.width, channels);
    for (int64_t r = 0; r < latents.rows; ++r) {
      bf16* to = z.data + r * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const float scaled = latents.row(r)[c] / options_.inv_std[c];
        to[c] = ToBf16(RoundToBf16(scaled) + options_.mean[c]);
      }
    }
    const MapView<bf16> mixed = Map(kCurrent, x.height, x.width, channels);
    LANCET_RETURN_IF_ERROR(weights_.latent_in.Forward(z, kNoPadding, false, mixed));
    return weights_.conv_in.Forward(mixed, kSamePadding, false, x);
  }

  // y = block(x). Uses spare_.
  absl::Status Residual(const KernelContext& ctx, VaeResBlock& block, MapView<bf16> x, MapView<bf16> y) {
    return layers_.Residual(ctx, block, x, Map(spare_, x.height, x.width, block.out_channels()), y);
  }

  // Uses spare_ and kCurrent.
  absl::Status Attend(const KernelContext& ctx, MapView<bf16> x) {
    return layers_.Attend(ctx, weights_.attention, x, Map(spare_, x.height, x.width, x.channels),
                          Map(kCurrent, x.height, x.width, 3 * x.channels));
  }

  // x: in input_. The result lies in input_ again (after an exchange), or in kCurrent for the last stage.
  absl::StatusOr<MapView<bf16>> Stage(const KernelContext& ctx, VaeStage& stage, MapView<bf16> x) {
    const MapView<bf16> y = Map(kCurrent, x.height, x.width, stage.out_channels());
    LANCET_RETURN_IF_ERROR(Residual(ctx, stage.blocks[0], x, y));
    for (size_t b = 1; b < stage.blocks.size(); ++b) {
      LANCET_RETURN_IF_ERROR(Residual(ctx, stage.blocks[b], y, y));
    }
    if (!stage.resample.has_value()) return y;
    const MapView<bf16> out = Map(spare_, 2 * x.height, 2 * x.width, stage.out_channels());
    LANCET_RETURN_IF_ERROR(layers_.strips().Run(
        *stage.resample, [&](int64_t begin, MapView<bf16> rows) { return UpsampleRows(ctx, y, begin, rows); },
        false, out));
    LANCET_RETURN_IF_ERROR(DupUpAdd(ctx, x, stage.frame_factor, out));
    std::swap(input_, spare_);
    return out;
  }

  absl::StatusOr<std::vector<float>> Leave(const KernelContext& ctx, MapView<bf16> x) {
    const MapView<bf16> patches = Map(spare_, x.height, x.width, weights_.head.shape().out_channels);
    LANCET_RETURN_IF_ERROR(layers_.NormConv(ctx, x, weights_.head_norm, weights_.head, false, patches));
    std::vector<float> planes(patches.elements());
    LANCET_RETURN_IF_ERROR(Unpatchify(ctx, patches, absl::MakeSpan(planes)));
    if (options_.clamp) {
      for (float& p : planes) p = std::clamp(p, -1.0f, 1.0f);
    }
    return planes;
  }

  const VaeDecoderOptions options_;
  VaeDecoderWeights weights_;
  VaeLayers layers_;
  MapBuffer buffers_[3];
  int input_ = 0;
  int spare_ = 1;
};

}  // namespace

absl::StatusOr<std::unique_ptr<VaeDecoder>> VaeDecoder::Load(const KernelContext& ctx, const StateDict& vae,
                                                             const VaeDecoderOptions& options) {
  LANCET_RETURN_IF_ERROR(CheckMaxLatents(options.max_latents));
  LANCET_ASSIGN_OR_RETURN(VaeDecoderWeights weights, LoadVaeDecoderWeights(ctx, vae));
  VaeDecoderOptions complete = options;
  LANCET_RETURN_IF_ERROR(
      CompleteLatentStatistics(vae.path(), weights.latent_channels(), complete.mean, complete.inv_std));
  LANCET_ASSIGN_OR_RETURN(SpatialAttention attention,
                          SpatialAttention::Create(ctx, weights.middle_channels(), options.max_latents));
  auto decoder = std::make_unique<Decoder>(std::move(weights), std::move(attention), std::move(complete));
  LANCET_RETURN_IF_ERROR(decoder->ReserveBuffers());
  return decoder;
}

absl::StatusOr<RgbImage> VaeDecoder::DecodeToImage(const KernelContext& ctx, ConstMatrixView<float> latents,
                                                   int64_t height, int64_t width) {
  LANCET_ASSIGN_OR_RETURN(const std::vector<float> planes, Decode(ctx, latents, height, width));
  return PixelsToImage(planes, kPixelsPerLatent * height, kPixelsPerLatent * width);
}

}  // namespace lancet

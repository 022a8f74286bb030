// The encoder's graph in four buffers. The residual stream and inner maps of every stage lie in `kCurrent`
// and `kInner`. The shortcut of a stage is a quarter of its input and needs nothing else, so it is computed
// first, into one of the two small buffers; the stage's last convolution adds to it, which makes it the next
// input.

#include "worker/model/vae/vae_encoder.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/bf16.h"
#include "common/model_config.h"
#include "common/status_macros.h"
#include "worker/model/vae/latent_statistics.h"
#include "worker/model/vae/vae_layers.h"
#include "worker/model/vae/vae_weights.h"

namespace lancet {
namespace {

constexpr int64_t kFold = 2;                          // pixels to a side of a patch
constexpr int64_t kScale = kPixelsPerLatent / kFold;  // patches to a side of a latent
constexpr ConvPadding kAfterPadding{0, 0, 1, 1};      // of the halving convolutions: bottom and right only

class Encoder final : public VaeEncoder {
 public:
  Encoder(VaeEncoderWeights weights, SpatialAttention attention, VaeEncoderOptions options)
      : VaeEncoder(std::move(options)), weights_(std::move(weights)), layers_(std::move(attention)) {}

  absl::Status ReserveBuffers() {
    // Elements per latent that each buffer needs, by walking the graph as Moments does.
    int64_t need[kBuffers] = {};
    const auto use = [&](int buffer, int64_t channels, int64_t pixels_per_latent) {
      need[buffer] = std::max(need[buffer], channels * pixels_per_latent);
    };
    int64_t area = kScale * kScale;
    use(kInner, weights_.conv_in.shape().in_channels, area);
    use(kCurrent, weights_.conv_in.shape().out_channels, area);
    for (int i = 0; i < kVaeStages; ++i) {
      const VaeStage& stage = weights_.stages[i];
      use(kInner, stage.out_channels(), area);
      use(kCurrent, stage.out_channels(), area);
      if (!stage.resample.has_value()) continue;
      area /= 4;
      use(Small(i), stage.out_channels(), area);
    }
    use(Small(0), std::max(3 * weights_.middle_channels(), 2 * latent_channels()), 1);
    use(kInner, 2 * latent_channels(), 1);
    for (int i = 0; i < kBuffers; ++i) {
      LANCET_RETURN_IF_ERROR(
          buffers_[i].Reserve(need[i] * options_.max_latents * static_cast<int64_t>(sizeof(bf16))));
    }
    return absl::OkStatus();
  }

  int64_t latent_channels() const override { return weights_.latent_channels(); }
  int64_t max_latents() const override { return options_.max_latents; }

  absl::StatusOr<VaeMoments> Moments(const KernelContext& ctx, absl::Span<const float> pixels, int64_t height,
                                     int64_t width) override {
    LANCET_RETURN_IF_ERROR(Check(pixels, height, width));
    const MapView<bf16> patches =
        Map(kInner, height / kFold, width / kFold, weights_.conv_in.shape().in_channels);
    LANCET_RETURN_IF_ERROR(Patchify(ctx, pixels, patches));
    MapView<bf16> x = Map(kCurrent, patches.height, patches.width, weights_.conv_in.shape().out_channels);
    LANCET_RETURN_IF_ERROR(weights_.conv_in.Forward(patches, kSamePadding, false, x));
    for (int i = 0; i < kVaeStages; ++i) {
      LANCET_ASSIGN_OR_RETURN(x, Stage(ctx, weights_.stages[i], Small(i), x));
    }
    LANCET_RETURN_IF_ERROR(layers_.Residual(ctx, weights_.middle_in, x, Inner(x, x.channels), x));
    LANCET_RETURN_IF_ERROR(layers_.Attend(ctx, weights_.attention, x, Inner(x, x.channels),
                                          Map(Small(0), x.height, x.width, 3 * x.channels)));
    LANCET_RETURN_IF_ERROR(layers_.Residual(ctx, weights_.middle_out, x, Inner(x, x.channels), x));
    return Leave(ctx, x);
  }

 private:
  static constexpr int kCurrent = 0;
  static constexpr int kInner = 1;
  static constexpr int kBuffers = 4;
  static int Small(int stage) { return 2 + stage % 2; }

  MapView<bf16> Map(int buffer, int64_t height, int64_t width, int64_t channels) const {
    return buffers_[buffer].Map(height, width, channels);
  }
  MapView<bf16> Inner(MapView<bf16> x, int64_t channels) const {
    return Map(kInner, x.height, x.width, channels);
  }

  absl::Status Check(absl::Span<const float> pixels, int64_t height, int64_t width) const {
    if (height < 1 || width < 1 || height % kPixelsPerLatent != 0 || width % kPixelsPerLatent != 0) {
      return absl::InvalidArgumentError(absl::StrCat("VAE encode: height ", height, ", width ", width,
                                                     "; expected multiples of ", kPixelsPerLatent));
    }
    const int64_t rows = height / kPixelsPerLatent;
    const int64_t cols = width / kPixelsPerLatent;
    if (rows > options_.max_latents || cols > options_.max_latents || rows * cols > options_.max_latents) {
      return absl::InvalidArgumentError(absl::StrCat(
          "VAE encode: ", rows, " x ", cols, " latents; expected 1 to ", options_.max_latents, " in all"));
    }
    if (static_cast<int64_t>(pixels.size()) != 3 * height * width) {
      return absl::InvalidArgumentError(absl::StrCat("VAE encode: ", pixels.size(),
                                                     " pixel values; expected ", 3 * height * width,
                                                     " for height ", height, ", width ", width));
    }
    return absl::OkStatus();
  }

  // x: in kCurrent for the first stage (which keeps its width), else in a small buffer other than `small`.
  // The result lies in `small`, or in kCurrent for the last stage.
  absl::StatusOr<MapView<bf16>> Stage(const KernelContext& ctx, VaeStage& stage, int small, MapView<bf16> x) {
    const int64_t channels = stage.out_channels();
    const MapView<bf16> half = Map(small, x.height / 2, x.width / 2, channels);
    if (stage.resample.has_value()) {
      LANCET_RETURN_IF_ERROR(AvgDown(ctx, x, stage.frame_factor, half));
    }
    const MapView<bf16> y = Map(kCurrent, x.height, x.width, channels);
    const MapView<bf16> inner = Inner(x, channels);
    LANCET_RETURN_IF_ERROR(layers_.Residual(ctx, stage.blocks[0], x, inner, y));
    for (size_t b = 1; b < stage.blocks.size(); ++b) {
      LANCET_RETURN_IF_ERROR(layers_.Residual(ctx, stage.blocks[b], y, inner, y));
    }
    if (!stage.resample.has_value()) {
      LANCET_RETURN_IF_ERROR(AddMap(ctx, x, y));
      return y;
    }
    LANCET_RETURN_IF_ERROR(stage.resample->Forward(y, kAfterPadding, true, half));
    return half;
  }

  // x: in kCurrent.
  absl::StatusOr<VaeMoments> Leave(const KernelContext& ctx, MapView<bf16> x) {
    const int64_t channels = latent_channels();
    const MapView<bf16> mixed = Inner(x, 2 * channels);
    LANCET_RETURN_IF_ERROR(layers_.NormConv(ctx, x, weights_.head_norm, weights_.head, false, mixed));
    const MapView<bf16> both = Map(Small(0), x.height, x.width, 2 * channels);
    LANCET_RETURN_IF_ERROR(weights_.moments_out.Forward(mixed, kNoPadding, false, both));
    VaeMoments moments;
    moments.mean.reserve(x.pixels() * channels);
    moments.log_variance.reserve(x.pixels() * channels);
    for (int64_t p = 0; p < x.pixels(); ++p) {
      const bf16* from = both.data + p * 2 * channels;
      for (int64_t c = 0; c < channels; ++c) moments.mean.push_back(ToFloat(from[c]));
      for (int64_t c = 0; c < channels; ++c) moments.log_variance.push_back(ToFloat(from[channels + c]));
    }
    return moments;
  }

  VaeEncoderWeights weights_;
  VaeLayers layers_;
  MapBuffer buffers_[kBuffers];
};

}  // namespace

VaeEncoder::VaeEncoder(VaeEncoderOptions options) : options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<VaeEncoder>> VaeEncoder::Load(const KernelContext& ctx, const StateDict& vae,
                                                             const VaeEncoderOptions& options) {
  LANCET_RETURN_IF_ERROR(CheckMaxLatents(options.max_latents));
  LANCET_ASSIGN_OR_RETURN(VaeEncoderWeights weights, LoadVaeEncoderWeights(ctx, vae));
  VaeEncoderOptions complete = options;
  LANCET_RETURN_IF_ERROR(
      CompleteLatentStatistics(vae.path(), weights.latent_channels(), complete.mean, complete.inv_std));
  LANCET_ASSIGN_OR_RETURN(SpatialAttention attention,
                          SpatialAttention::Create(ctx, weights.middle_channels(), options.max_latents));
  auto encoder = std::make_unique<Encoder>(std::move(weights), std::move(attention), std::move(complete));
  LANCET_RETURN_IF_ERROR(encoder->ReserveBuffers());
  return encoder;
}

absl::StatusOr<std::vector<float>> VaeEncoder::Encode(const KernelContext& ctx,
                                                      absl::Span<const float> pixels, int64_t height,
                                                      int64_t width, absl::Span<const float> noise) {
  const int64_t channels = latent_channels();
  LANCET_ASSIGN_OR_RETURN(const VaeMoments moments, Moments(ctx, pixels, height, width));
  if (!noise.empty() && noise.size() != moments.mean.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "VAE encode: ", noise.size(), " values of noise; expected ", moments.mean.size(), " or none"));
  }
  std::vector<float> latents(moments.mean.size());
  for (size_t i = 0; i < latents.size(); ++i) {
    const size_t c = i % channels;
    const float centred = moments.mean[i] - options_.mean[c];
    latents[i] = RoundToBf16(RoundToBf16(centred) * options_.inv_std[c]);
    if (!noise.empty()) latents[i] += noise[i] * std::exp(0.5f * moments.log_variance[i]);
  }
  return latents;
}

absl::StatusOr<std::vector<float>> VaeEncoder::Encode(const KernelContext& ctx, const RgbImage& image,
                                                      absl::Span<const float> noise) {
  LANCET_ASSIGN_OR_RETURN(const std::vector<float> pixels, ImageToPixels(image));
  return Encode(ctx, pixels, image.height, image.width, noise);
}

}  // namespace lancet

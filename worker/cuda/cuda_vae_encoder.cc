// The residual stream of every stage lies in kStream. The shortcut of a stage is a quarter of its input and
// needs nothing else, so it is computed first, into one of two maps in turn; the stage's last convolution
// adds to it, which makes it the next input.

#include "worker/cuda/cuda_vae_encoder.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/model_config.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/vae_encoder_ops.h"
#include "kernels/cuda/vae_ops.h"
#include "worker/model/vae/latent_statistics.h"

namespace lancet {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(60);
constexpr int kStages = 4;
constexpr int64_t kBlocks = 2;                        // of a stage
constexpr int64_t kFold = 2;                          // pixels to a side of a patch
constexpr int64_t kScale = kPixelsPerLatent / kFold;  // patches to a side of a latent

// Where the shortcut of a stage goes.
CudaVaeLayers::Map Small(int stage) { return stage % 2 == 0 ? CudaVaeLayers::kInput : CudaVaeLayers::kSpare; }

}  // namespace

absl::StatusOr<std::unique_ptr<CudaVaeEncoder>> CudaVaeEncoder::Load(const CudaContext& ctx,
                                                                     CudaVaeLayers& layers,
                                                                     const StateDict& vae,
                                                                     const VaeEncoderOptions& options) {
  LANCET_RETURN_IF_ERROR(CheckMaxLatents(options.max_latents));
  const CudaVaeLoader loader(ctx, vae);
  LANCET_ASSIGN_OR_RETURN(CudaConv2d moments_out, loader.Conv("conv1", 1, 0, 0));
  const int64_t both = moments_out.shape().out_channels;
  if (both != moments_out.shape().in_channels || both % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(vae.path(), ": tensor \"conv1.weight\" takes ",
                                                   moments_out.shape().in_channels, " channels to ", both,
                                                   "; expected an even multiple of 8, the same for both"));
  }
  VaeEncoderOptions complete = options;
  LANCET_RETURN_IF_ERROR(
      CompleteLatentStatistics(vae.path(), static_cast<size_t>(both / 2), complete.mean, complete.inv_std));
  std::unique_ptr<CudaVaeEncoder> encoder(new CudaVaeEncoder(ctx, layers, std::move(complete)));
  encoder->latent_channels_ = both / 2;
  encoder->moments_out_ = std::move(moments_out);
  LANCET_ASSIGN_OR_RETURN(encoder->conv_in_, loader.Conv("encoder.conv1", 3, 12, 0));
  int64_t width = encoder->conv_in_->shape().out_channels;
  for (int index = 0; index < kStages; ++index) {
    const std::string prefix = absl::StrCat("encoder.downsamples.", index, ".downsamples.");
    // The first and the last stage keep their width, which the graph relies on; the others also halve frames.
    const bool widens = index == 1 || index == 2;
    const int64_t in = width;
    LANCET_ASSIGN_OR_RETURN(CudaVaeStage stage,
                            loader.Stage(prefix, kBlocks, in, widens ? 0 : in, widens ? 2 : 1));
    width = stage.out();
    if (4 * stage.frame_factor * in % width != 0) {
      return absl::InvalidArgumentError(absl::StrCat(vae.path(), ": encoder stage ", index, " goes from ", in,
                                                     " to ", width, " channels; its shortcut needs ",
                                                     4 * stage.frame_factor,
                                                     " times the former to be a multiple of the latter"));
    }
    if (index + 1 < kStages) {
      LANCET_ASSIGN_OR_RETURN(stage.resample,
                              loader.Conv(prefix + "2.resample.1", 3, width, width, /*stride=*/2));
    }
    encoder->stages_.push_back(std::move(stage));
  }
  encoder->middle_channels_ = width;
  LANCET_ASSIGN_OR_RETURN(encoder->middle_in_, loader.Block("encoder.middle.0", width, width));
  LANCET_ASSIGN_OR_RETURN(encoder->attention_, loader.Attention("encoder.middle.1", width));
  LANCET_ASSIGN_OR_RETURN(encoder->middle_out_, loader.Block("encoder.middle.2", width, width));
  LANCET_ASSIGN_OR_RETURN(encoder->head_norm_, loader.Gamma("encoder.head.0.gamma", width));
  LANCET_ASSIGN_OR_RETURN(encoder->head_, loader.Conv("encoder.head.2", 3, width, both));
  LANCET_ASSIGN_OR_RETURN(encoder->mean_, loader.Upload(encoder->options_.mean));
  LANCET_ASSIGN_OR_RETURN(encoder->inv_std_, loader.Upload(encoder->options_.inv_std));
  LANCET_RETURN_IF_ERROR(encoder->Reserve());
  return encoder;
}

absl::Status CudaVaeEncoder::Reserve() {
  const int64_t n = options_.max_latents;
  int64_t stream = 0;
  int64_t inner = 0;
  int64_t normed = 0;
  int64_t small[2] = {};
  int64_t scale = kScale;
  int64_t width = conv_in_->shape().out_channels;
  stream = scale * scale * n * width;
  inner = scale * scale * n * conv_in_->shape().in_channels;
  for (size_t i = 0; i < stages_.size(); ++i) {
    const int64_t out = stages_[i].out();
    const int64_t pixels = scale * scale * n;
    stream = std::max(stream, pixels * out);
    inner = std::max(inner, pixels * out);
    normed = std::max(normed, pixels * std::max(width, out));
    width = out;
    if (!stages_[i].resample.has_value()) continue;
    // A row and a column more: of n latents in a line, sides add up to n + 1.
    normed = std::max(normed, (pixels + scale * (n + 1) + 1) * out);
    scale /= 2;
    small[i % 2] = std::max(small[i % 2], scale * scale * n * out);
  }
  // Attention reads queries and keys in whole groups of eight pixels.
  small[0] = std::max({small[0], (n + 7) * 3 * middle_channels_, n * 2 * latent_channels_});
  inner = std::max(inner, n * 2 * latent_channels_);
  LANCET_RETURN_IF_ERROR(layers_.Reserve(CudaVaeLayers::kStream, stream));
  LANCET_RETURN_IF_ERROR(layers_.Reserve(CudaVaeLayers::kInner, inner));
  LANCET_RETURN_IF_ERROR(layers_.Reserve(CudaVaeLayers::kNormed, normed));
  LANCET_RETURN_IF_ERROR(layers_.Reserve(Small(0), small[0]));
  LANCET_RETURN_IF_ERROR(layers_.Reserve(Small(1), small[1]));
  LANCET_RETURN_IF_ERROR(layers_.ReserveAttention(middle_channels_, n));
  LANCET_RETURN_IF_ERROR(layers_.ReservePixels(kPixelsPerLatent * kPixelsPerLatent * n));
  LANCET_ASSIGN_OR_RETURN(noise_, DeviceArray<float>::Create(n * latent_channels_));
  return absl::OkStatus();
}

absl::Status CudaVaeEncoder::CheckSides(int64_t height, int64_t width, size_t values) const {
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
  if (values != static_cast<size_t>(3 * height * width)) {
    return absl::InvalidArgumentError(absl::StrCat("VAE encode: ", values, " pixel values; expected ",
                                                   3 * height * width, " for height ", height, ", width ",
                                                   width));
  }
  return absl::OkStatus();
}

absl::Status CudaVaeEncoder::Run(int64_t height, int64_t width) {
  const cudaStream_t stream = ctx_.stream();
  bf16* const y = layers_.map(CudaVaeLayers::kStream);
  bf16* const inner = layers_.map(CudaVaeLayers::kInner);
  bf16* const normed = layers_.map(CudaVaeLayers::kNormed);
  height /= kFold;
  width /= kFold;
  LANCET_CUDA_RETURN_IF_ERROR(cuda::Patchify(layers_.planes().data(), height, width, inner, stream));
  LANCET_RETURN_IF_ERROR(conv_in_->Forward(inner, height, width, nullptr, y));
  int64_t channels = conv_in_->shape().out_channels;
  // The first stage keeps its width, so its input may be overwritten.
  bf16* x = y;
  for (size_t i = 0; i < stages_.size(); ++i) {
    CudaVaeStage& stage = stages_[i];
    const int64_t out = stage.out();
    bf16* const half = layers_.map(Small(static_cast<int>(i)));
    if (stage.resample.has_value()) {
      LANCET_CUDA_RETURN_IF_ERROR(
          cuda::AvgDown(x, height / 2, width / 2, channels, out, stage.frame_factor, half, stream));
    }
    LANCET_RETURN_IF_ERROR(layers_.Residual(stage.blocks[0], x, height, width, inner, y));
    for (size_t b = 1; b < stage.blocks.size(); ++b) {
      LANCET_RETURN_IF_ERROR(layers_.Residual(stage.blocks[b], y, height, width, inner, y));
    }
    channels = out;
    if (!stage.resample.has_value()) {
      LANCET_CUDA_RETURN_IF_ERROR(cuda::AddMap(x, height * width * out, y, stream));
      continue;
    }
    LANCET_CUDA_RETURN_IF_ERROR(cuda::PadAfter(y, height, width, out, normed, stream));
    LANCET_RETURN_IF_ERROR(stage.resample->Forward(normed, height + 1, width + 1, half, half));
    x = half;
    height /= 2;
    width /= 2;
  }
  LANCET_RETURN_IF_ERROR(layers_.Residual(middle_in_, y, height, width, inner, y));
  LANCET_RETURN_IF_ERROR(layers_.Attend(attention_, height, width, inner, /*qkv=*/layers_.map(Small(0)), y));
  LANCET_RETURN_IF_ERROR(layers_.Residual(middle_out_, y, height, width, inner, y));
  LANCET_CUDA_RETURN_IF_ERROR(
      cuda::ChannelNorm(y, head_norm_.data(), height * width, channels, /*silu=*/true, normed, stream));
  LANCET_RETURN_IF_ERROR(head_->Forward(normed, height, width, nullptr, inner));
  return moments_out_->Forward(inner, height, width, nullptr, moments());
}

absl::StatusOr<VaeMoments> CudaVaeEncoder::Moments(const KernelContext& /*ctx*/,
                                                   absl::Span<const float> pixels, int64_t height,
                                                   int64_t width) {
  LANCET_RETURN_IF_ERROR(CheckSides(height, width, pixels.size()));
  LANCET_RETURN_IF_ERROR(layers_.planes().CopyFrom(pixels, ctx_.stream()));
  LANCET_RETURN_IF_ERROR(Run(height, width));
  const int64_t rows = height / kPixelsPerLatent * (width / kPixelsPerLatent);
  std::vector<bf16> both(rows * 2 * latent_channels_);
  LANCET_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(both.data(), moments(), both.size() * sizeof(bf16),
                                              cudaMemcpyDeviceToHost, ctx_.stream()));
  LANCET_RETURN_IF_ERROR(ctx_.Wait(kTimeout));
  VaeMoments result;
  for (int64_t p = 0; p < rows; ++p) {
    const bf16* row = both.data() + p * 2 * latent_channels_;
    std::transform(row, row + latent_channels_, std::back_inserter(result.mean), ToFloat);
    std::transform(row + latent_channels_, row + 2 * latent_channels_,
                   std::back_inserter(result.log_variance), ToFloat);
  }
  return result;
}

absl::Status CudaVaeEncoder::EncodePicture(const RgbImage& image, absl::Span<const float> noise,
                                           bf16* latents) {
  LANCET_RETURN_IF_ERROR(CheckSides(image.height, image.width, image.pixels.size()));
  const int64_t rows = image.height / kPixelsPerLatent * (image.width / kPixelsPerLatent);
  if (!noise.empty() && static_cast<int64_t>(noise.size()) != rows * latent_channels_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "VAE encode: ", noise.size(), " values of noise; expected ", rows * latent_channels_, " or none"));
  }
  const cudaStream_t stream = ctx_.stream();
  LANCET_RETURN_IF_ERROR(layers_.rgb().CopyFrom(image.pixels, stream));
  LANCET_RETURN_IF_ERROR(noise_.CopyFrom(noise, stream));
  LANCET_CUDA_RETURN_IF_ERROR(cuda::RgbToPlanes(layers_.rgb().data(), int64_t{image.width} * image.height,
                                                layers_.planes().data(), stream));
  LANCET_RETURN_IF_ERROR(Run(image.height, image.width));
  LANCET_CUDA_RETURN_IF_ERROR(cuda::NormaliseLatents(moments(), mean_.data(), inv_std_.data(),
                                                     noise.empty() ? nullptr : noise_.data(), rows,
                                                     latent_channels_, latents, stream));
  return ctx_.Wait(kTimeout);
}

}  // namespace lancet

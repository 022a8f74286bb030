#include "worker/cuda/cuda_vae_decoder.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/model_config.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/vae_ops.h"
#include "worker/model/vae/latent_statistics.h"
#include "worker/model/vae/vae_tensors.h"

namespace lancet {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(60);
constexpr int kStages = 4;

// Scores of the middle block are cut so that they take at most this much memory.
constexpr int64_t kMaxScores = int64_t{1} << 26;

int64_t RoundUp8(int64_t n) { return (n + 7) / 8 * 8; }

}  // namespace

// Tensor names to layers.
class CudaVaeDecoder::Loader {
 public:
  Loader(const CudaContext& ctx, const StateDict& dict) : ctx_(ctx), dict_(dict) {}

  // `in` and `out` 0: any.
  absl::StatusOr<CudaConv2d> Conv(const std::string& prefix, int64_t kernel, int64_t in, int64_t out) const {
    LANCET_ASSIGN_OR_RETURN(const VaeConvTensors tensors, ReadVaeConv(dict_, prefix, kernel, in, out));
    return CudaConv2d::Create(ctx_, {tensors.out_channels, tensors.in_channels, kernel}, tensors.weight,
                              tensors.bias);
  }
  absl::StatusOr<DeviceArray<float>> Gamma(const std::string& name, int64_t channels) const {
    LANCET_ASSIGN_OR_RETURN(std::vector<float> gamma, ReadVaeVector(dict_, name, channels));
    for (float& g : gamma) g = RoundToBf16(g);
    return Upload(gamma);
  }
  absl::StatusOr<DeviceArray<float>> Upload(const std::vector<float>& values) const {
    LANCET_ASSIGN_OR_RETURN(DeviceArray<float> array, DeviceArray<float>::CopyOf(values, ctx_.stream()));
    LANCET_RETURN_IF_ERROR(ctx_.Wait(kTimeout));
    return array;
  }
  absl::StatusOr<ResBlock> Block(const std::string& prefix, int64_t in, int64_t out) const {
    ResBlock block;
    LANCET_ASSIGN_OR_RETURN(block.norm1, Gamma(prefix + ".residual.0.gamma", in));
    LANCET_ASSIGN_OR_RETURN(block.conv1, Conv(prefix + ".residual.2", 3, in, out));
    out = block.out();
    LANCET_ASSIGN_OR_RETURN(block.norm2, Gamma(prefix + ".residual.3.gamma", out));
    LANCET_ASSIGN_OR_RETURN(block.conv2, Conv(prefix + ".residual.6", 3, out, out));
    if (in != out) {
      LANCET_ASSIGN_OR_RETURN(block.shortcut, Conv(prefix + ".shortcut", 1, in, out));
    }
    return block;
  }

 private:
  const CudaContext& ctx_;
  const StateDict& dict_;
};

absl::StatusOr<std::unique_ptr<CudaVaeDecoder>> CudaVaeDecoder::Load(const CudaContext& ctx,
                                                                     MatmulPlans& matmul,
                                                                     const StateDict& vae,
                                                                     const VaeDecoderOptions& options) {
  std::unique_ptr<CudaVaeDecoder> decoder(new CudaVaeDecoder(ctx, matmul, options));
  const Loader loader(ctx, vae);
  LANCET_ASSIGN_OR_RETURN(decoder->conv_in_, loader.Conv("decoder.conv1", 3, 0, 0));
  const int64_t latent = decoder->latent_channels_ = decoder->conv_in_->shape().in_channels;
  const int64_t middle = decoder->middle_channels_ = decoder->conv_in_->shape().out_channels;
  LANCET_ASSIGN_OR_RETURN(decoder->latent_in_, loader.Conv("conv2", 1, latent, latent));
  LANCET_ASSIGN_OR_RETURN(decoder->middle_in_, loader.Block("decoder.middle.0", middle, middle));
  LANCET_ASSIGN_OR_RETURN(decoder->attention_norm_, loader.Gamma("decoder.middle.1.norm.gamma", middle));
  LANCET_ASSIGN_OR_RETURN(decoder->qkv_, loader.Conv("decoder.middle.1.to_qkv", 1, middle, 3 * middle));
  LANCET_ASSIGN_OR_RETURN(decoder->proj_, loader.Conv("decoder.middle.1.proj", 1, middle, middle));
  LANCET_ASSIGN_OR_RETURN(decoder->middle_out_, loader.Block("decoder.middle.2", middle, middle));
  int64_t width = middle;
  for (int index = 0; index < kStages; ++index) {
    const std::string prefix = absl::StrCat("decoder.upsamples.", index, ".upsamples.");
    Stage stage;
    stage.frame_factor = index < 2 ? 2 : 1;
    for (int b = 0; b < 3; ++b) {
      // The first block sets the stage's width.
      LANCET_ASSIGN_OR_RETURN(ResBlock block,
                              loader.Block(absl::StrCat(prefix, b), width, b == 0 ? 0 : width));
      width = block.out();
      stage.blocks.push_back(std::move(block));
    }
    if (index + 1 < kStages) {
      LANCET_ASSIGN_OR_RETURN(stage.resample, loader.Conv(prefix + "3.resample.1", 3, width, width));
    }
    decoder->stages_.push_back(std::move(stage));
  }
  LANCET_ASSIGN_OR_RETURN(decoder->head_norm_, loader.Gamma("decoder.head.0.gamma", width));
  LANCET_ASSIGN_OR_RETURN(decoder->head_, loader.Conv("decoder.head.2", 3, width, 12));
  std::vector<float> mean = options.mean;
  std::vector<float> inv_std = options.inv_std;
  if (mean.empty() && inv_std.empty()) {
    const LatentStatistics wan = WanLatentStatistics();
    mean.assign(wan.mean.begin(), wan.mean.end());
    inv_std.assign(wan.inv_std.begin(), wan.inv_std.end());
  }
  if (static_cast<int64_t>(mean.size()) != latent || static_cast<int64_t>(inv_std.size()) != latent) {
    return absl::InvalidArgumentError(absl::StrCat(vae.path(), ": the decoder takes ", latent,
                                                   " latent channels; there are statistics for ",
                                                   mean.size()));
  }
  LANCET_ASSIGN_OR_RETURN(decoder->mean_, loader.Upload(mean));
  LANCET_ASSIGN_OR_RETURN(decoder->inv_std_, loader.Upload(inv_std));
  LANCET_RETURN_IF_ERROR(decoder->Reserve());
  return decoder;
}

absl::Status CudaVaeDecoder::Reserve() {
  // Elements per latent of each map, by walking the graph as Run does.
  int64_t need[4] = {middle_channels_, 3 * middle_channels_, middle_channels_, middle_channels_};
  int64_t scale = 1;
  int64_t width = middle_channels_;
  for (const Stage& stage : stages_) {
    const int64_t out = stage.blocks.front().out();
    need[kStream] = std::max(need[kStream], scale * out);
    need[kInner] = std::max(need[kInner], scale * out);
    need[kNormed] = std::max(need[kNormed], scale * std::max(width, out));
    if (stage.resample.has_value()) {
      scale *= 4;
      need[kNormed] = std::max(need[kNormed], scale * out);  // enlarged
      need[kInput] = std::max(need[kInput], scale * out);
      need[kInner] = std::max(need[kInner], scale * out);
    }
    width = out;
  }
  // These two change places.
  need[kInput] = need[kInner] = std::max(need[kInput], need[kInner]);
  for (int i = 0; i < 4; ++i) {
    LANCET_ASSIGN_OR_RETURN(maps_[i], DeviceArray<bf16>::Create(need[i] * RoundUp8(options_.max_latents)));
  }
  const int64_t n = RoundUp8(options_.max_latents);
  LANCET_ASSIGN_OR_RETURN(scores_, DeviceArray<float>::Create(std::min(kMaxScores, n * n)));
  LANCET_ASSIGN_OR_RETURN(probabilities_, DeviceArray<bf16>::Create(std::min(kMaxScores, n * n)));
  LANCET_ASSIGN_OR_RETURN(values_, DeviceArray<bf16>::Create(middle_channels_ * n));
  const int64_t pixels = kPixelsPerLatent * kPixelsPerLatent * options_.max_latents;
  LANCET_ASSIGN_OR_RETURN(planes_, DeviceArray<float>::Create(3 * pixels));
  LANCET_ASSIGN_OR_RETURN(rgb_, DeviceArray<uint8_t>::Create(3 * pixels));
  LANCET_ASSIGN_OR_RETURN(latents_, DeviceArray<float>::Create(options_.max_latents * latent_channels_));
  return absl::OkStatus();
}

absl::Status CudaVaeDecoder::Residual(ResBlock& block, const bf16* x, int64_t height, int64_t width,
                                      bf16* y) {
  const int64_t pixels = height * width;
  bf16* const normed = maps_[kNormed].data();
  bf16* const inner = maps_[kInner].data();
  LANCET_CUDA_RETURN_IF_ERROR(
      cuda::ChannelNorm(x, block.norm1.data(), pixels, block.in(), /*silu=*/true, normed, ctx_.stream()));
  LANCET_RETURN_IF_ERROR(block.conv1->Forward(normed, height, width, nullptr, inner));
  const bf16* addend = x;
  if (block.shortcut.has_value()) {
    LANCET_RETURN_IF_ERROR(block.shortcut->Forward(x, height, width, nullptr, y));
    addend = y;
  }
  LANCET_CUDA_RETURN_IF_ERROR(cuda::ChannelNorm(inner, block.norm2.data(), pixels, block.out(), /*silu=*/true,
                                                normed, ctx_.stream()));
  return block.conv2->Forward(normed, height, width, addend, y);
}

absl::Status CudaVaeDecoder::Attend(int64_t height, int64_t width, bf16* x) {
  const int64_t pixels = height * width;
  const int64_t padded = RoundUp8(pixels);
  const int64_t channels = middle_channels_;
  bf16* const normed = maps_[kNormed].data();
  bf16* const qkv = maps_[kStream].data();
  bf16* const out = maps_[kInner].data();
  LANCET_CUDA_RETURN_IF_ERROR(
      cuda::ChannelNorm(x, attention_norm_.data(), pixels, channels, /*silu=*/false, normed, ctx_.stream()));
  LANCET_RETURN_IF_ERROR(qkv_->Forward(normed, height, width, nullptr, qkv));
  // Rows of the transposed values are padded to 16 bytes; what lies there meets probabilities of zero.
  LANCET_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(
      values_.data(), 0, static_cast<size_t>(channels * padded) * sizeof(bf16), ctx_.stream()));
  LANCET_CUDA_RETURN_IF_ERROR(cuda::Transpose(qkv + 2 * channels, 3 * channels, pixels, channels,
                                              values_.data(), padded, ctx_.stream()));
  const int64_t chunk = std::max<int64_t>(1, kMaxScores / padded);
  for (int64_t first = 0; first < pixels; first += chunk) {
    const int64_t rows = std::min(chunk, pixels - first);
    MatmulShape scores;
    scores.output = MatmulOutput::kF32;
    scores.tokens = rows;
    // The library wants whole 16 bytes: scores of what lies behind the keys are left out by the softmax.
    scores.rows = padded;
    scores.cols = channels;
    scores.x_stride = 3 * channels;
    scores.w_stride = 3 * channels;
    scores.y_stride = padded;
    MatmulArgs args;
    args.x = qkv + first * 3 * channels;
    args.w = qkv + channels;
    args.y = scores_.data();
    LANCET_RETURN_IF_ERROR(matmul_.Run(scores, args));
    LANCET_CUDA_RETURN_IF_ERROR(cuda::SoftmaxRows(scores_.data(),
                                                  1.0f / std::sqrt(static_cast<float>(channels)), rows,
                                                  pixels, padded, probabilities_.data(), ctx_.stream()));
    MatmulShape mix;
    mix.tokens = rows;
    mix.rows = channels;
    mix.cols = padded;
    mix.x_stride = padded;
    mix.y_stride = channels;
    args.x = probabilities_.data();
    args.w = values_.data();
    args.y = out + first * channels;
    LANCET_RETURN_IF_ERROR(matmul_.Run(mix, args));
  }
  return proj_->Forward(out, height, width, x, x);
}

absl::Status CudaVaeDecoder::Run(const float* latents, int64_t height, int64_t width) {
  if (height < 1 || width < 1 || height > options_.max_latents || width > options_.max_latents ||
      height * width > options_.max_latents) {
    return absl::InvalidArgumentError(absl::StrCat(
        "VAE decode: ", height, " x ", width, " latents; expected 1 to ", options_.max_latents, " in all"));
  }
  const cudaStream_t stream = ctx_.stream();
  bf16* const x = maps_[kInput].data();
  LANCET_CUDA_RETURN_IF_ERROR(cuda::DenormaliseLatents(latents, inv_std_.data(), mean_.data(), height * width,
                                                       latent_channels_, maps_[kNormed].data(), stream));
  LANCET_RETURN_IF_ERROR(
      latent_in_->Forward(maps_[kNormed].data(), height, width, nullptr, maps_[kInner].data()));
  LANCET_RETURN_IF_ERROR(conv_in_->Forward(maps_[kInner].data(), height, width, nullptr, x));
  LANCET_RETURN_IF_ERROR(Residual(middle_in_, x, height, width, x));
  LANCET_RETURN_IF_ERROR(Attend(height, width, x));
  LANCET_RETURN_IF_ERROR(Residual(middle_out_, x, height, width, x));
  int64_t channels = middle_channels_;
  for (Stage& stage : stages_) {
    bf16* const y = maps_[kStream].data();
    LANCET_RETURN_IF_ERROR(Residual(stage.blocks[0], maps_[kInput].data(), height, width, y));
    for (size_t b = 1; b < stage.blocks.size(); ++b) {
      LANCET_RETURN_IF_ERROR(Residual(stage.blocks[b], y, height, width, y));
    }
    const int64_t out = stage.blocks.front().out();
    if (stage.resample.has_value()) {
      bf16* const enlarged = maps_[kNormed].data();
      bf16* const next = maps_[kInner].data();
      LANCET_CUDA_RETURN_IF_ERROR(cuda::Upsample(y, height, width, out, enlarged, stream));
      LANCET_RETURN_IF_ERROR(stage.resample->Forward(enlarged, 2 * height, 2 * width, nullptr, next));
      LANCET_CUDA_RETURN_IF_ERROR(cuda::DupUpAdd(maps_[kInput].data(), height, width, channels, out,
                                                 stage.frame_factor, next, stream));
      std::swap(maps_[kInput], maps_[kInner]);
      height *= 2;
      width *= 2;
    }
    channels = out;
  }
  LANCET_CUDA_RETURN_IF_ERROR(cuda::ChannelNorm(maps_[kStream].data(), head_norm_.data(), height * width,
                                                channels,
                                                /*silu=*/true, maps_[kNormed].data(), stream));
  LANCET_RETURN_IF_ERROR(head_->Forward(maps_[kNormed].data(), height, width, nullptr, maps_[kInner].data()));
  return CudaStatus(
      cuda::Unpatchify(maps_[kInner].data(), height, width, options_.clamp, planes_.data(), stream),
      "unpatchify");
}

absl::StatusOr<std::vector<float>> CudaVaeDecoder::Decode(const KernelContext& /*ctx*/,
                                                          ConstMatrixView<float> latents, int64_t height,
                                                          int64_t width) {
  if (latents.rows != height * width || latents.cols != latent_channels_ ||
      latents.rows > options_.max_latents) {
    return absl::InvalidArgumentError(
        absl::StrCat("VAE decode: latents are [", latents.rows, ", ", latents.cols, "]; expected [",
                     height * width, ", ", latent_channels_, "], at most ", options_.max_latents, " rows"));
  }
  std::vector<float> dense;
  for (int64_t r = 0; r < latents.rows; ++r)
    dense.insert(dense.end(), latents.row(r), latents.row(r) + latents.cols);
  LANCET_RETURN_IF_ERROR(latents_.CopyFrom(dense, ctx_.stream()));
  LANCET_RETURN_IF_ERROR(Run(latents_.data(), height, width));
  std::vector<float> planes(3 * kPixelsPerLatent * kPixelsPerLatent * height * width);
  LANCET_RETURN_IF_ERROR(planes_.CopyTo(absl::MakeSpan(planes), ctx_.stream()));
  LANCET_RETURN_IF_ERROR(ctx_.Wait(kTimeout));
  return planes;
}

absl::StatusOr<RgbImage> CudaVaeDecoder::DecodePicture(const float* latents, int64_t height, int64_t width) {
  LANCET_RETURN_IF_ERROR(Run(latents, height, width));
  RgbImage image;
  image.width = static_cast<int32_t>(kPixelsPerLatent * width);
  image.height = static_cast<int32_t>(kPixelsPerLatent * height);
  image.pixels.resize(3 * int64_t{image.width} * image.height);
  LANCET_CUDA_RETURN_IF_ERROR(
      cuda::PlanesToRgb(planes_.data(), image.height, image.width, rgb_.data(), ctx_.stream()));
  LANCET_RETURN_IF_ERROR(rgb_.CopyTo(absl::MakeSpan(image.pixels), ctx_.stream()));
  LANCET_RETURN_IF_ERROR(ctx_.Wait(kTimeout));
  return image;
}

}  // namespace lancet

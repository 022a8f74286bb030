#include "worker/cuda/cuda_vae_decoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/model_config.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/vae_ops.h"
#include "worker/model/vae/latent_statistics.h"

namespace lancet {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(60);
constexpr int kStages = 4;
constexpr int64_t kBlocks = 3;  // of a stage

}  // namespace

absl::StatusOr<std::unique_ptr<CudaVaeDecoder>> CudaVaeDecoder::Load(const CudaContext& ctx,
                                                                     CudaVaeLayers& layers,
                                                                     const StateDict& vae,
                                                                     const VaeDecoderOptions& options) {
  LANCET_RETURN_IF_ERROR(CheckMaxLatents(options.max_latents));
  std::unique_ptr<CudaVaeDecoder> decoder(new CudaVaeDecoder(ctx, layers, options));
  const CudaVaeLoader loader(ctx, vae);
  LANCET_ASSIGN_OR_RETURN(decoder->conv_in_, loader.Conv("decoder.conv1", 3, 0, 0));
  const int64_t latent = decoder->latent_channels_ = decoder->conv_in_->shape().in_channels;
  const int64_t middle = decoder->middle_channels_ = decoder->conv_in_->shape().out_channels;
  LANCET_ASSIGN_OR_RETURN(decoder->latent_in_, loader.Conv("conv2", 1, latent, latent));
  LANCET_ASSIGN_OR_RETURN(decoder->middle_in_, loader.Block("decoder.middle.0", middle, middle));
  LANCET_ASSIGN_OR_RETURN(decoder->attention_, loader.Attention("decoder.middle.1", middle));
  LANCET_ASSIGN_OR_RETURN(decoder->middle_out_, loader.Block("decoder.middle.2", middle, middle));
  int64_t width = middle;
  for (int index = 0; index < kStages; ++index) {
    const std::string prefix = absl::StrCat("decoder.upsamples.", index, ".upsamples.");
    LANCET_ASSIGN_OR_RETURN(CudaVaeStage stage,
                            loader.Stage(prefix, kBlocks, width, /*out=*/0, index < 2 ? 2 : 1));
    const int64_t in = width;
    width = stage.out();
    if (index + 1 < kStages) {
      if (4 * stage.frame_factor * width % in != 0) {
        return absl::InvalidArgumentError(absl::StrCat(vae.path(), ": decoder stage ", index, " goes from ",
                                                       in, " to ", width, " channels; its shortcut needs ",
                                                       4 * stage.frame_factor,
                                                       " times the latter to be a multiple of the former"));
      }
      LANCET_ASSIGN_OR_RETURN(stage.resample, loader.Conv(prefix + "3.resample.1", 3, width, width));
    }
    decoder->stages_.push_back(std::move(stage));
  }
  LANCET_ASSIGN_OR_RETURN(decoder->head_norm_, loader.Gamma("decoder.head.0.gamma", width));
  LANCET_ASSIGN_OR_RETURN(decoder->head_, loader.Conv("decoder.head.2", 3, width, 12));
  LANCET_RETURN_IF_ERROR(CompleteLatentStatistics(vae.path(), static_cast<size_t>(latent),
                                                  decoder->options_.mean, decoder->options_.inv_std));
  LANCET_ASSIGN_OR_RETURN(decoder->mean_, loader.Upload(decoder->options_.mean));
  LANCET_ASSIGN_OR_RETURN(decoder->inv_std_, loader.Upload(decoder->options_.inv_std));
  LANCET_RETURN_IF_ERROR(decoder->Reserve());
  return decoder;
}

absl::Status CudaVaeDecoder::Reserve() {
  // Elements per latent of each map, by walking the graph as Run does.
  int64_t stream = 3 * middle_channels_;
  int64_t inner = middle_channels_;  // two of them, which change places
  int64_t normed = std::max(middle_channels_, latent_channels_);
  int64_t scale = 1;
  int64_t width = middle_channels_;
  for (const CudaVaeStage& stage : stages_) {
    const int64_t out = stage.out();
    stream = std::max(stream, scale * out);
    inner = std::max(inner, scale * out);
    normed = std::max(normed, scale * std::max(width, out));
    if (stage.resample.has_value()) {
      scale *= 4;
      normed = std::max(normed, scale * out);  // enlarged
      inner = std::max(inner, scale * out);
    }
    width = out;
  }
  inner = std::max(inner, scale * head_->shape().out_channels);
  const int64_t n = options_.max_latents;
  LANCET_RETURN_IF_ERROR(layers_.Reserve(CudaVaeLayers::kInput, n * inner));
  LANCET_RETURN_IF_ERROR(layers_.Reserve(CudaVaeLayers::kInner, n * inner));
  // Attention reads queries and keys in whole groups of eight pixels.
  LANCET_RETURN_IF_ERROR(layers_.Reserve(CudaVaeLayers::kStream, (n + 7) * stream));
  LANCET_RETURN_IF_ERROR(layers_.Reserve(CudaVaeLayers::kNormed, n * normed));
  LANCET_RETURN_IF_ERROR(layers_.ReserveAttention(middle_channels_, n));
  LANCET_RETURN_IF_ERROR(layers_.ReservePixels(kPixelsPerLatent * kPixelsPerLatent * n));
  LANCET_ASSIGN_OR_RETURN(latents_, DeviceArray<float>::Create(n * latent_channels_));
  return absl::OkStatus();
}

VaeRowSplit CudaVaeDecoder::Split(int64_t height, int rank, int world_size) const {
  std::vector<VaeStageShape> shapes;
  for (const CudaVaeStage& stage : stages_) {
    shapes.push_back({static_cast<int64_t>(stage.blocks.size()), stage.resample.has_value()});
  }
  return SplitVaeRows(height, shapes, rank, world_size);
}

absl::Status CudaVaeDecoder::Run(const float* latents, int64_t height, int64_t width,
                                 const VaeRowSplit& split) {
  if (height < 1 || width < 1 || height > options_.max_latents || width > options_.max_latents ||
      height * width > options_.max_latents) {
    return absl::InvalidArgumentError(absl::StrCat(
        "VAE decode: ", height, " x ", width, " latents; expected 1 to ", options_.max_latents, " in all"));
  }
  const cudaStream_t stream = ctx_.stream();
  bf16* input_map = layers_.map(CudaVaeLayers::kInput);
  bf16* input = input_map;
  bf16* inner = layers_.map(CudaVaeLayers::kInner);
  bf16* const y = layers_.map(CudaVaeLayers::kStream);
  bf16* const normed = layers_.map(CudaVaeLayers::kNormed);
  LANCET_CUDA_RETURN_IF_ERROR(cuda::DenormaliseLatents(latents, inv_std_.data(), mean_.data(), height * width,
                                                       latent_channels_, normed, stream));
  LANCET_RETURN_IF_ERROR(latent_in_->Forward(normed, height, width, nullptr, inner));
  LANCET_RETURN_IF_ERROR(conv_in_->Forward(inner, height, width, nullptr, input));
  LANCET_RETURN_IF_ERROR(layers_.Residual(middle_in_, input, height, width, inner, input));
  LANCET_RETURN_IF_ERROR(layers_.Attend(attention_, height, width, inner, /*qkv=*/y, input));
  // From here on only the rows that the split asks for.
  if (split.own.size() == 0) return absl::OkStatus();
  input += split.middle.begin * width * middle_channels_;
  LANCET_RETURN_IF_ERROR(layers_.Residual(middle_out_, input, split.middle.size(), width, inner, input));
  int64_t channels = middle_channels_;
  for (size_t i = 0; i < stages_.size(); ++i) {
    CudaVaeStage& stage = stages_[i];
    const int64_t rows = split.computed(i).size();
    LANCET_RETURN_IF_ERROR(layers_.Residual(stage.blocks[0], input, rows, width, inner, y));
    for (size_t b = 1; b < stage.blocks.size(); ++b) {
      LANCET_RETURN_IF_ERROR(layers_.Residual(stage.blocks[b], y, rows, width, inner, y));
    }
    const int64_t out = stage.out();
    if (stage.resample.has_value()) {
      const int64_t kept = split.kept[i].size();
      const int64_t skipped = (split.kept[i].begin - split.computed(i).begin) * width;
      LANCET_CUDA_RETURN_IF_ERROR(cuda::Upsample(y + skipped * out, kept, width, out, normed, stream));
      LANCET_RETURN_IF_ERROR(stage.resample->Forward(normed, 2 * kept, 2 * width, nullptr, inner));
      LANCET_CUDA_RETURN_IF_ERROR(cuda::DupUpAdd(input + skipped * channels, kept, width, channels, out,
                                                 stage.frame_factor, inner, stream));
      std::swap(input_map, inner);
      input = input_map;
      width *= 2;
    }
    channels = out;
  }
  const int64_t rows = split.head.size();
  LANCET_CUDA_RETURN_IF_ERROR(
      cuda::ChannelNorm(y, head_norm_.data(), rows * width, channels, /*silu=*/true, normed, stream));
  LANCET_RETURN_IF_ERROR(head_->Forward(normed, rows, width, nullptr, inner));
  const int64_t skipped = (split.own.begin * split.scale - split.head.begin) * width;
  return CudaStatus(
      cuda::Unpatchify(inner + skipped * head_->shape().out_channels, split.own.size() * split.scale, width,
                       options_.clamp, layers_.planes().data(), stream),
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
  LANCET_RETURN_IF_ERROR(Run(latents_.data(), height, width, Split(height, 0, 1)));
  std::vector<float> planes(3 * kPixelsPerLatent * kPixelsPerLatent * height * width);
  LANCET_RETURN_IF_ERROR(layers_.planes().CopyTo(absl::MakeSpan(planes), ctx_.stream()));
  LANCET_RETURN_IF_ERROR(ctx_.Wait(kTimeout));
  return planes;
}

absl::StatusOr<RgbImage> CudaVaeDecoder::DecodePicture(const float* latents, int64_t height, int64_t width) {
  LANCET_RETURN_IF_ERROR(Run(latents, height, width, Split(height, 0, 1)));
  RgbImage image;
  image.width = static_cast<int32_t>(kPixelsPerLatent * width);
  image.height = static_cast<int32_t>(kPixelsPerLatent * height);
  image.pixels.resize(3 * int64_t{image.width} * image.height);
  LANCET_CUDA_RETURN_IF_ERROR(cuda::PlanesToRgb(layers_.planes().data(), image.height, image.width,
                                                layers_.rgb().data(), ctx_.stream()));
  LANCET_RETURN_IF_ERROR(layers_.rgb().CopyTo(absl::MakeSpan(image.pixels), ctx_.stream()));
  LANCET_RETURN_IF_ERROR(ctx_.Wait(kTimeout));
  return image;
}

absl::Status CudaVaeDecoder::ReserveShared(int world_size) {
  // A rank may have to deliver as much as the whole of a flat picture.
  const int64_t bytes = 3 * kPixelsPerLatent * kPixelsPerLatent * options_.max_latents * world_size;
  if (gathered_.size() >= bytes) return absl::OkStatus();
  LANCET_ASSIGN_OR_RETURN(gathered_, DeviceArray<uint8_t>::Create(bytes));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<RgbImage>> CudaVaeDecoder::DecodeShared(const float* latents, int64_t height,
                                                                     int64_t width, DeviceCollective& group) {
  const int world_size = group.world_size();
  const VaeRowSplit split = Split(height, group.rank(), world_size);
  LANCET_RETURN_IF_ERROR(Run(latents, height, width, split));
  const int64_t row_bytes = 3 * kPixelsPerLatent * kPixelsPerLatent * width;  // of a row of latents
  LANCET_CUDA_RETURN_IF_ERROR(cuda::PlanesToRgb(layers_.planes().data(), kPixelsPerLatent * split.own.size(),
                                                kPixelsPerLatent * width, layers_.rgb().data(),
                                                ctx_.stream()));
  // The first rank has the most rows.
  const int64_t part_bytes = SplitEvenly(height, 0, world_size).size() * row_bytes;
  LANCET_RETURN_IF_ERROR(group.AllGather(layers_.rgb().data(), gathered_.data(), part_bytes));
  if (group.rank() != 0) return std::nullopt;
  RgbImage image;
  image.width = static_cast<int32_t>(kPixelsPerLatent * width);
  image.height = static_cast<int32_t>(kPixelsPerLatent * height);
  image.pixels.resize(height * row_bytes);
  for (int rank = 0; rank < world_size; ++rank) {
    const Range own = SplitEvenly(height, rank, world_size);
    LANCET_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(image.pixels.data() + own.begin * row_bytes, gathered_.data() + rank * part_bytes,
                        static_cast<size_t>(own.size() * row_bytes), cudaMemcpyDeviceToHost, ctx_.stream()));
  }
  LANCET_RETURN_IF_ERROR(ctx_.Wait(kTimeout));
  return std::optional<RgbImage>(std::move(image));
}

}  // namespace lancet

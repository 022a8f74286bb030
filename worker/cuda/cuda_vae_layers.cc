#include "worker/cuda/cuda_vae_layers.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/vae_ops.h"
#include "worker/model/vae/vae_tensors.h"

namespace lancet {
namespace {

constexpr absl::Duration kUploadTimeout = absl::Seconds(60);

// Scores of the middle block are cut so that they take at most this much memory.
constexpr int64_t kMaxScores = int64_t{1} << 26;

int64_t RoundUp8(int64_t n) { return (n + 7) / 8 * 8; }

// Makes `array` at least `size` long.
template <typename T>
absl::Status Grow(DeviceArray<T>& array, int64_t size) {
  if (array.size() >= size) return absl::OkStatus();
  LANCET_ASSIGN_OR_RETURN(array, DeviceArray<T>::Create(size));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CudaConv2d> CudaVaeLoader::Conv(const std::string& prefix, int64_t kernel, int64_t in,
                                               int64_t out, int64_t stride) const {
  LANCET_ASSIGN_OR_RETURN(const VaeConvTensors tensors, ReadVaeConv(dict_, prefix, kernel, in, out));
  CudaConvShape shape;
  shape.out_channels = tensors.out_channels;
  shape.in_channels = RoundUp8(tensors.in_channels);
  shape.kernel = kernel;
  shape.stride = stride;
  if (shape.in_channels == tensors.in_channels) {
    return CudaConv2d::Create(ctx_, shape, tensors.weight, tensors.bias);
  }
  const int64_t area = kernel * kernel;
  std::vector<float> filled(shape.out_channels * shape.in_channels * area);
  for (int64_t o = 0; o < shape.out_channels; ++o) {
    std::copy_n(tensors.weight.begin() + o * tensors.in_channels * area, tensors.in_channels * area,
                filled.begin() + o * shape.in_channels * area);
  }
  return CudaConv2d::Create(ctx_, shape, filled, tensors.bias);
}

absl::StatusOr<DeviceArray<float>> CudaVaeLoader::Gamma(const std::string& name, int64_t channels) const {
  LANCET_ASSIGN_OR_RETURN(std::vector<float> gamma, ReadVaeVector(dict_, name, channels));
  for (float& g : gamma) g = RoundToBf16(g);
  return Upload(gamma);
}

absl::StatusOr<DeviceArray<float>> CudaVaeLoader::Upload(const std::vector<float>& values) const {
  LANCET_ASSIGN_OR_RETURN(DeviceArray<float> array, DeviceArray<float>::CopyOf(values, ctx_.stream()));
  LANCET_RETURN_IF_ERROR(ctx_.Wait(kUploadTimeout));
  return array;
}

absl::StatusOr<CudaVaeResBlock> CudaVaeLoader::Block(const std::string& prefix, int64_t in,
                                                     int64_t out) const {
  CudaVaeResBlock block;
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

absl::StatusOr<CudaVaeAttention> CudaVaeLoader::Attention(const std::string& prefix, int64_t channels) const {
  CudaVaeAttention attention;
  LANCET_ASSIGN_OR_RETURN(attention.norm, Gamma(prefix + ".norm.gamma", channels));
  LANCET_ASSIGN_OR_RETURN(attention.qkv, Conv(prefix + ".to_qkv", 1, channels, 3 * channels));
  LANCET_ASSIGN_OR_RETURN(attention.proj, Conv(prefix + ".proj", 1, channels, channels));
  return attention;
}

absl::StatusOr<CudaVaeStage> CudaVaeLoader::Stage(const std::string& prefix, int64_t blocks, int64_t in,
                                                  int64_t out, int64_t frame_factor) const {
  CudaVaeStage stage;
  stage.frame_factor = frame_factor;
  for (int64_t b = 0; b < blocks; ++b) {
    LANCET_ASSIGN_OR_RETURN(CudaVaeResBlock block, Block(absl::StrCat(prefix, b), in, out));
    in = out = block.out();
    stage.blocks.push_back(std::move(block));
  }
  return stage;
}

absl::Status CudaVaeLayers::Reserve(Map map, int64_t values) { return Grow(maps_[map], values); }

absl::Status CudaVaeLayers::ReserveAttention(int64_t channels, int64_t pixels) {
  const int64_t n = RoundUp8(pixels);
  LANCET_RETURN_IF_ERROR(Grow(scores_, std::min(kMaxScores, n * n)));
  LANCET_RETURN_IF_ERROR(Grow(probabilities_, std::min(kMaxScores, n * n)));
  return Grow(values_, channels * n);
}

absl::Status CudaVaeLayers::ReservePixels(int64_t pixels) {
  LANCET_RETURN_IF_ERROR(Grow(planes_, 3 * pixels));
  return Grow(rgb_, 3 * pixels);
}

int64_t CudaVaeLayers::resident_bytes() const {
  int64_t bytes = scores_.bytes() + probabilities_.bytes() + values_.bytes() + planes_.bytes() + rgb_.bytes();
  for (const DeviceArray<bf16>& map : maps_) bytes += map.bytes();
  return bytes;
}

absl::Status CudaVaeLayers::Residual(CudaVaeResBlock& block, const bf16* x, int64_t height, int64_t width,
                                     bf16* inner, bf16* y) {
  const int64_t pixels = height * width;
  bf16* const normed = map(kNormed);
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

absl::Status CudaVaeLayers::Attend(CudaVaeAttention& attention, int64_t height, int64_t width, bf16* inner,
                                   bf16* qkv, bf16* x) {
  const int64_t pixels = height * width;
  const int64_t padded = RoundUp8(pixels);
  const int64_t channels = attention.proj->shape().in_channels;
  bf16* const normed = map(kNormed);
  LANCET_CUDA_RETURN_IF_ERROR(
      cuda::ChannelNorm(x, attention.norm.data(), pixels, channels, /*silu=*/false, normed, ctx_.stream()));
  LANCET_RETURN_IF_ERROR(attention.qkv->Forward(normed, height, width, nullptr, qkv));
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
    args.y = inner + first * channels;
    LANCET_RETURN_IF_ERROR(matmul_.Run(mix, args));
  }
  return attention.proj->Forward(inner, height, width, x, x);
}

}  // namespace lancet

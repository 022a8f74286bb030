// Times of what turns pictures into tokens and latents on a CUDA device: the vision tower and the
// autoencoder's encoder of the release's sizes with random weights, from a picture in host memory to rows on
// the device.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iostream>
#include <memory>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/random_model.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/matmul.h"
#include "worker/cuda/cuda_vae_encoder.h"
#include "worker/cuda/cuda_vision_encoder.h"

namespace lancet {
namespace {

constexpr int kRuns = 9;
constexpr double kBf16Rate = 778e12;  // bf16 products of an H100 under load, FLOP/s

RgbImage Picture(int32_t width, int32_t height) {
  RgbImage image{width, height, {}};
  for (int64_t i = 0; i < int64_t{3} * width * height; ++i) {
    image.pixels.push_back(static_cast<uint8_t>(i * 2654435761u >> 13));
  }
  return image;
}

// Milliseconds of the middle run; the first makes plans.
absl::StatusOr<double> Median(const std::function<absl::Status()>& run) {
  std::vector<double> times;
  for (int i = 0; i <= kRuns; ++i) {
    const absl::Time start = absl::Now();
    LANCET_RETURN_IF_ERROR(run());
    if (i > 0) times.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

absl::Status RunVision(const CudaContext& ctx, MatmulPlans& matmul) {
  const VisionConfig config = ReleaseVisionConfig();
  const auto tower = RandomModel::VisionTower(config);
  const int64_t before = ctx.free_bytes();
  LANCET_ASSIGN_OR_RETURN(const auto encoder, CudaVisionEncoder::Load(ctx, matmul, *tower, config, 2304));
  std::cout << absl::StrFormat("vision tower, %.2f GB on the device\n", (before - ctx.free_bytes()) * 1e-9);
  struct Size {
    int32_t width, height;
    double tera_flop;  // spec of the model, by grid
  };
  for (const Size& size : {Size{224, 224, 0.332}, {448, 448, 1.343}, {756, 560, 2.882}, {672, 672, 3.082}}) {
    const RgbImage picture = Picture(size.width, size.height);
    LANCET_ASSIGN_OR_RETURN(const auto out,
                            DeviceArray<bf16>::Create(encoder->TokensOf(picture) * config.out_hidden_size));
    LANCET_ASSIGN_OR_RETURN(const double time,
                            Median([&] { return encoder->EncodePicture(picture, out.data()); }));
    std::cout << absl::StrFormat("%4d x %-4d %4d tokens %7.2f ms (floor %5.2f ms at 778 TFLOP/s)\n",
                                 size.width, size.height, encoder->TokensOf(picture), time,
                                 size.tera_flop * 1e15 / kBf16Rate);
  }
  return absl::OkStatus();
}

absl::Status RunEncoder(const CudaContext& ctx, MatmulPlans& matmul) {
  const auto vae = RandomModel::VaeEncoder();
  CudaVaeLayers layers(ctx, matmul);
  VaeEncoderOptions options;
  options.max_latents = 4096;
  const int64_t before = ctx.free_bytes();
  LANCET_ASSIGN_OR_RETURN(const auto encoder, CudaVaeEncoder::Load(ctx, layers, *vae, options));
  std::cout << absl::StrFormat("autoencoder's encoder, %.2f GB on the device, %.2f of them for maps\n",
                               (before - ctx.free_bytes()) * 1e-9, layers.resident_bytes() * 1e-9);
  struct Size {
    int32_t width, height;
  };
  for (const Size& size : {Size{256, 256}, {512, 512}, {768, 768}, {1024, 1024}}) {
    const RgbImage picture = Picture(size.width, size.height);
    const double pixels = static_cast<double>(size.width) * size.height;
    // Convolutions grow with the area, attention with its square.
    const double flop =
        pixels / (768.0 * 768.0) * 0.957e12 + pixels * pixels / (768.0 * 768.0 * 768.0 * 768.0) * 0.0136e12;
    const int64_t rows = int64_t{size.width / kPixelsPerLatent} * (size.height / kPixelsPerLatent);
    LANCET_ASSIGN_OR_RETURN(const auto out, DeviceArray<bf16>::Create(rows * kLatentChannels));
    LANCET_ASSIGN_OR_RETURN(const double time,
                            Median([&] { return encoder->EncodePicture(picture, {}, out.data()); }));
    std::cout << absl::StrFormat("%4d x %-4d %4d latents %7.2f ms (floor %5.2f ms at 778 TFLOP/s)\n",
                                 size.width, size.height, rows, time, flop / kBf16Rate * 1e3);
  }
  return absl::OkStatus();
}

absl::Status RunAll() {
  LANCET_ASSIGN_OR_RETURN(const auto ctx, CudaContext::Create(0));
  std::cout << ctx->description() << "\n";
  MatmulPlans matmul(*ctx);
  LANCET_RETURN_IF_ERROR(RunVision(*ctx, matmul));
  return RunEncoder(*ctx, matmul);
}

}  // namespace
}  // namespace lancet

int main() {
  const absl::Status status = lancet::RunAll();
  if (!status.ok()) std::cerr << "cuda_encoder_bench: " << status << "\n";
  return status.ok() ? 0 : 1;
}

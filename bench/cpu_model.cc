#include "bench/cpu_model.h"

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/random_model.h"
#include "bench/trunk_case.h"
#include "common/rgb_image.h"
#include "common/status_macros.h"
#include "worker/collective/local_collective.h"
#include "worker/model/head_linear.h"
#include "worker/model/vae/vae_decoder.h"
#include "worker/model/vae/vae_encoder.h"
#include "worker/model/vision/vision_encoder.h"

namespace lancet {
namespace {

constexpr int64_t kPrefillRows = 258;
constexpr int64_t kAnswerPast = 700;  // tokens of a picture and its question
constexpr int kMaxSide = 1024;
// Multiply-adds of one frame through the autoencoder for each pixel, without the middle block's attention:
// 310.3 and 53.2 G for 256 x 256.
constexpr double kDecodeMacsPerPixel = 310.3e9 / 65536;
constexpr double kEncodeMacsPerPixel = 53.2e9 / 65536;
constexpr double kDecoderMiddle = 1024;
constexpr double kEncoderMiddle = 640;

class Bench {
 public:
  Bench(const CpuModelBenchOptions& options, const KernelContext& ctx, MachineLimits limits)
      : options_(options), ctx_(ctx), limits_(limits) {}

  LinearPolicy Policy() const {
    return LinearPolicy::Uniform(options_.mode, options_.head, options_.e4m3_scales);
  }

  absl::Status Step(int side) {
    const int64_t latents = Latents(side);
    LANCET_RETURN_IF_ERROR(NeedTrunk(std::max<int64_t>(2 * (latents + 2), 1024)));
    const std::unique_ptr<KvCache> caches[] = {trunk_->MakeCache(kPrefixTokens, kPrefixTokens),
                                               trunk_->MakeCache(kPrefixTokens, kPrefixTokens)};
    Pass pass;
    const Positions positions = RunOfPositions(kPrefixTokens, latents + 2);
    for (const auto& cache : caches) pass.AddLatents(cache.get(), positions, /*append=*/false);
    pass.Finish();
    LANCET_ASSIGN_OR_RETURN(const double seconds, Least([&] { return trunk_->Run(pass, *collective_); }));
    const double rows = static_cast<double>(pass.rows());
    const double macs =
        rows * (TrunkCase::LayerMacs() + TrunkCase::AttentionMacs(latents + 2 + kPrefixTokens));
    PrintLayers(absl::StrFormat("step %dx%d, guided pair, %d rows", side, side, pass.rows()), seconds, macs);
    return absl::OkStatus();
  }

  absl::Status Prefill() {
    LANCET_RETURN_IF_ERROR(NeedTrunk(1024));
    Pass pass;
    const std::unique_ptr<KvCache> cache = trunk_->MakeCache(kPrefillRows * (options_.repetitions + 1), 0);
    // Each run appends; what is measured sees as many tokens on average as the run's number says.
    pass.AddText(cache.get(), RunOfPositions(0, kPrefillRows), 0, kPrefillRows);
    pass.Finish();
    LANCET_ASSIGN_OR_RETURN(const double seconds, Least([&] { return trunk_->Run(pass, *collective_); }));
    const double macs = static_cast<double>(kPrefillRows) *
                        (TrunkCase::LayerMacs() + TrunkCase::AttentionMacs(kPrefillRows + kPrefillRows / 2));
    PrintLayers(absl::StrFormat("prefill, %d tokens", kPrefillRows), seconds, macs);
    return absl::OkStatus();
  }

  absl::Status Decode(int batch) {
    LANCET_RETURN_IF_ERROR(NeedTrunk(1024));
    LANCET_RETURN_IF_ERROR(NeedHead());
    std::vector<std::unique_ptr<KvCache>> caches;
    Pass pass;
    for (int i = 0; i < batch; ++i) {
      caches.push_back(trunk_->MakeCache(kAnswerPast + options_.repetitions + 1, kAnswerPast));
      pass.AddAnswer(caches.back().get(), kAnswerPast);
    }
    pass.Finish();
    LANCET_ASSIGN_OR_RETURN(const double layers, Least([&] { return trunk_->Run(pass, *collective_); }));
    const int64_t vocab = head_->rows();
    const int64_t hidden = ReleaseConfig().hidden_size;
    std::vector<bf16> x(static_cast<size_t>(batch * hidden), ToBf16(0.5f));
    std::vector<bf16> logits(static_cast<size_t>(batch * vocab));
    LANCET_ASSIGN_OR_RETURN(const double head, Least([&] {
                              return head_->Run(ctx_, ConstMatrixView<bf16>(x.data(), batch, hidden),
                                                MatrixView<bf16>(logits.data(), batch, vocab));
                            }));
    const double token = layers * kReleaseLayers / options_.layers + head;
    const double cache_bytes = 2.0 * 2 * 256 * static_cast<double>(kAnswerPast * batch);
    const double bytes = kReleaseLayers * (TrunkCase::ExpertBytes(options_.e4m3_scales) + cache_bytes) +
                         (options_.head == HeadForm::kBf16 ? 2.0 : 1.0) * static_cast<double>(vocab * hidden);
    std::cout << absl::StrFormat(
        "%-44s %8.1f ms a token (head %.1f), %6.2f tokens/s, %5.1f GB/s, %3.0f %% of reading\n",
        absl::StrFormat("answers, %d at once, %d tokens before", batch, kAnswerPast), token * 1e3, head * 1e3,
        batch / token, bytes / token * 1e-9, Share(bytes / token, limits_.read_bytes));
    return absl::OkStatus();
  }

  absl::Status VaeDecode(const std::vector<int>& sides) {
    const int64_t before = Settled();
    VaeDecoderOptions vae_options;
    vae_options.max_latents = Latents(sides.back());
    LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<VaeDecoder> vae,
                            VaeDecoder::Load(ctx_, *RandomModel::VaeDecoder(), vae_options));
    std::cout << absl::StrFormat("%-44s %8.0f MB resident\n", "autoencoder, decoder loaded",
                                 static_cast<double>(Settled() - before) * 1e-6);
    for (const int side : sides) {
      const int64_t latents = Latents(side);
      const std::vector<float> z = Values(latents * kLatentChannels);
      ResetPeakMemory();
      LANCET_ASSIGN_OR_RETURN(
          const double seconds, Least([&] {
            return vae->Decode(ctx_, {z.data(), latents, kLatentChannels}, side / 16, side / 16).status();
          }));
      PrintVae("decode", side, seconds, kDecodeMacsPerPixel, kDecoderMiddle, before);
    }
    return absl::OkStatus();
  }

  absl::Status VaeEncode(const std::vector<int>& sides) {
    const int64_t before = Settled();
    VaeEncoderOptions vae_options;
    vae_options.max_latents = Latents(sides.back());
    LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<VaeEncoder> vae,
                            VaeEncoder::Load(ctx_, *RandomModel::VaeEncoder(), vae_options));
    std::cout << absl::StrFormat("%-44s %8.0f MB resident\n", "autoencoder, encoder loaded",
                                 static_cast<double>(Settled() - before) * 1e-6);
    for (const int side : sides) {
      const std::vector<float> pixels = Values(int64_t{3} * side * side);
      ResetPeakMemory();
      LANCET_ASSIGN_OR_RETURN(const double seconds,
                              Least([&] { return vae->Encode(ctx_, pixels, side, side).status(); }));
      PrintVae("encode", side, seconds, kEncodeMacsPerPixel, kEncoderMiddle, before);
    }
    return absl::OkStatus();
  }

  absl::Status Vit() {
    constexpr int kSide = 448;
    const VisionConfig config = ReleaseVisionConfig();
    VisionEncoderOptions vit_options;
    LANCET_ASSIGN_OR_RETURN(
        const std::unique_ptr<VisionEncoder> vit,
        VisionEncoder::Load(ctx_, *RandomModel::VisionTower(config), config, 0, 1, vit_options));
    LANCET_ASSIGN_OR_RETURN(const auto collective,
                            SingleRankCollective::Create(static_cast<size_t>(vit->reduce_capacity())));
    RgbImage picture;
    picture.width = kSide;
    picture.height = kSide;
    picture.pixels.resize(size_t{3} * kSide * kSide);
    std::mt19937 random(4);
    for (auto& value : picture.pixels) value = static_cast<uint8_t>(random());
    const int64_t tokens = vit->TokensOf(picture);
    std::vector<bf16> out(static_cast<size_t>(tokens * config.out_hidden_size));
    LANCET_ASSIGN_OR_RETURN(const double seconds, Least([&] {
                              return vit->EncodePicture(
                                  picture, *collective, absl::Minutes(10),
                                  MatrixView<bf16>(out.data(), tokens, config.out_hidden_size));
                            }));
    const double patches = static_cast<double>(tokens * config.cell_patches());
    const double hidden = static_cast<double>(config.hidden_size);
    const double merged = static_cast<double>(config.merged_size());
    double macs = patches * hidden * static_cast<double>(config.patch_values());
    for (int64_t block = 0; block < config.depth; ++block) {
      const double window = static_cast<double>(config.window_cells * config.window_cells * 4);
      const double keys = config.IsFullAttention(block) ? patches : window;
      macs += patches * hidden * (4 * hidden + 3 * static_cast<double>(config.intermediate_size) + 2 * keys);
    }
    macs += static_cast<double>(tokens) * merged * (merged + static_cast<double>(config.out_hidden_size));
    Print(absl::StrFormat("vision tower, %dx%d, %d patches", kSide, kSide, static_cast<int>(patches)),
          seconds, macs);
    return absl::OkStatus();
  }

 private:
  static int64_t Latents(int side) { return int64_t{side / 16} * (side / 16); }

  template <typename Run>
  absl::StatusOr<double> Least(Run run) const {
    return LeastSeconds(options_.clock, options_.repetitions, run);
  }

  static std::vector<float> Values(int64_t count) {
    std::mt19937 random(3);
    std::uniform_real_distribution<float> value(-1.0f, 1.0f);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = value(random);
    return values;
  }

  // Resident bytes after what is free was given back.
  static int64_t Settled() {
    ResetPeakMemory();
    return ReadProcessMemory().resident;
  }

  absl::Status NeedTrunk(int64_t rows) {
    if (trunk_ != nullptr && trunk_->transformer().max_rows() >= rows) return absl::OkStatus();
    trunk_.reset();
    LANCET_ASSIGN_OR_RETURN(trunk_, TrunkCase::Create(ctx_, options_.layers, rows, 0, 1, Policy()));
    LANCET_ASSIGN_OR_RETURN(collective_, SingleRankCollective::Create(
                                             static_cast<size_t>(trunk_->transformer().reduce_capacity())));
    return absl::OkStatus();
  }

  absl::Status NeedHead() {
    if (head_ != nullptr) return absl::OkStatus();
    const ModelConfig config = ReleaseConfig();
    std::vector<bf16> rows(static_cast<size_t>(config.vocab_size * config.hidden_size), ToBf16(0.01f));
    LANCET_ASSIGN_OR_RETURN(
        HeadLinear packed,
        HeadLinear::Create(ctx_, {rows.data(), config.vocab_size, config.hidden_size}, options_.head));
    head_ = std::make_unique<HeadLinear>(std::move(packed));
    return absl::OkStatus();
  }

  void Print(const std::string& what, double seconds, double macs) const {
    std::cout << absl::StrFormat("%-44s %8.1f ms, %6.1f GFLOP/s, %3.0f %% of the peak\n", what, seconds * 1e3,
                                 2e-9 * macs / seconds, Share(2 * macs / seconds, limits_.flops));
  }
  // `macs` of one layer; `seconds` of all that were run.
  void PrintLayers(const std::string& what, double seconds, double macs) const {
    const double layer = seconds / options_.layers;
    std::cout << absl::StrFormat(
        "%-44s %8.1f ms a layer, %.2f s for %d, %6.1f GFLOP/s, %3.0f %% of the peak\n", what, layer * 1e3,
        kReleaseLayers * layer, kReleaseLayers, 2e-9 * macs / layer, Share(2 * macs / layer, limits_.flops));
  }
  void PrintVae(const char* what, int side, double seconds, double macs_per_pixel, double middle,
                int64_t before) const {
    const double n = static_cast<double>(Latents(side));
    const double macs = macs_per_pixel * side * side + 2 * n * n * middle;
    const int64_t peak = ReadProcessMemory().peak - before;
    Print(absl::StrFormat("%s %dx%d, at most %.0f MB with weights", what, side, side,
                          static_cast<double>(peak) * 1e-6),
          seconds, macs);
  }

  const CpuModelBenchOptions& options_;
  const KernelContext& ctx_;
  const MachineLimits limits_;
  std::unique_ptr<TrunkCase> trunk_;
  std::unique_ptr<SingleRankCollective> collective_;
  std::unique_ptr<HeadLinear> head_;
};

absl::StatusOr<std::vector<int>> Sides(const CpuModelBenchOptions& options) {
  std::vector<int> sides;
  for (const std::string& text : options.sides) {
    int side = 0;
    if (!absl::SimpleAtoi(text, &side) || side < 16 || side > kMaxSide || side % 16 != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("--sides: ", text, " is not a multiple of 16 from 16 to ", kMaxSide));
    }
    sides.push_back(side);
  }
  std::sort(sides.begin(), sides.end());
  return sides;
}

}  // namespace

absl::Status BenchCpuModel(const CpuModelBenchOptions& options) {
  LANCET_ASSIGN_OR_RETURN(const std::vector<int> sides, Sides(options));
  if (options.parts.empty() || sides.empty()) return absl::OkStatus();
  CpuOptions cpu;
  cpu.threads = options.threads;
  LANCET_ASSIGN_OR_RETURN(const auto ctx, KernelContext::CreateCpu(cpu));
  ctx->BindCallingThread();
  const MachineLimits limits = MeasureLimits(*ctx, options.threads);
  Bench bench(options, *ctx, limits);
  std::cout << absl::StrFormat(
      "release's sizes, random weights, %s, %s, %d of 36 layers, %d thread(s); this machine now: %.0f "
      "GFLOP/s "
      "of multiply-adds, %.0f G/s of whole int8 blocks, %.1f GB/s of reading\n",
      ctx->description(), bench.Policy().Numerics(), options.layers, options.threads, limits.flops * 1e-9,
      limits.int8_blocks * 1e-9, limits.read_bytes * 1e-9);
  for (const std::string& part : options.parts) {
    if (part == "step") {
      for (const int side : sides) LANCET_RETURN_IF_ERROR(bench.Step(side));
    } else if (part == "prefill") {
      LANCET_RETURN_IF_ERROR(bench.Prefill());
    } else if (part == "decode") {
      for (const int batch : {1, 2, 4, 8}) LANCET_RETURN_IF_ERROR(bench.Decode(batch));
    } else if (part == "vae") {
      LANCET_RETURN_IF_ERROR(bench.VaeDecode(sides));
      LANCET_RETURN_IF_ERROR(bench.VaeEncode(sides));
    } else if (part == "vit") {
      LANCET_RETURN_IF_ERROR(bench.Vit());
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("--parts: ", part, " is not step, prefill, decode, vae or vit"));
    }
  }
  return absl::OkStatus();
}

}  // namespace lancet

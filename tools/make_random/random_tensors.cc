#include "tools/make_random/random_tensors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/bf16.h"
#include "common/trunk_layout.h"
#include "common/vision_tower.h"
#include "kernels/number_formats.h"

namespace lancet {
namespace {

// Extent of a latent position table; the release's picture checkpoint has 64 x 64 rows.
constexpr int64_t kLatentPositions = 4096;

// The finaliser of SplitMix64: every bit of the result depends on every bit of x.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t Draw(uint64_t stream, int64_t index) {
  return Mix(stream + static_cast<uint64_t>(index + 1) * 0x9e3779b97f4a7c15u);
}

// FNV-1a over the name, then mixed with the seed.
uint64_t StreamOf(absl::string_view name, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return Mix(hash ^ Mix(seed));
}

RandomTensor Uniform(const std::string& name, DType dtype, Shape shape, float low, float high,
                     uint64_t seed) {
  RandomTensor tensor;
  tensor.name = name;
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.low = low;
  tensor.high = high;
  tensor.stream = StreamOf(name, seed);
  return tensor;
}

// Between -x and x with the variance 1 / inputs, so that a product keeps the size of what goes in.
float Spread(int64_t inputs) { return std::sqrt(3.0f / static_cast<float>(inputs)); }

constexpr int kScaleLevels = 256;
constexpr float kLowScale = 0.002f;
constexpr float kHighScale = 0.01f;

struct ScaleTables {
  std::array<bf16, kScaleLevels> wide;
  std::array<uint8_t, kScaleLevels> narrow;
};

const ScaleTables& Scales() {
  static const ScaleTables tables = [] {
    ScaleTables t;
    for (int i = 0; i < kScaleLevels; ++i) {
      const float scale = kLowScale + (kHighScale - kLowScale) * static_cast<float>(i) / (kScaleLevels - 1);
      t.wide[i] = ToBf16(scale);
      t.narrow[i] = ToE4m3(scale);
    }
    return t;
  }();
  return tables;
}

// Calls put(item, draw) for the items [first, last) of `per_draw` items a draw.
template <typename Put>
void ForEachDraw(uint64_t stream, int64_t first, int64_t last, int64_t per_draw, Put put) {
  for (int64_t item = first; item < last; item += per_draw) put(item, Draw(stream, item / per_draw));
}

void FillCodes(const RandomTensor& tensor, int64_t first, absl::Span<std::byte> out) {
  const int64_t last = first + static_cast<int64_t>(out.size());
  ForEachDraw(tensor.stream, first, last, 8, [&](int64_t byte, uint64_t draw) {
    // One code of the block gets magnitude 7; its sign stays random.
    draw |= uint64_t{7} << (4 * (Mix(draw) >> 60));
    std::memcpy(out.data() + (byte - first), &draw, std::min<int64_t>(8, last - byte));
  });
}

template <typename T, typename Level>
void FillLevels(const RandomTensor& tensor, int64_t first, absl::Span<std::byte> out, Level level) {
  T* values = reinterpret_cast<T*>(out.data());
  const int64_t begin = first / static_cast<int64_t>(sizeof(T));
  const int64_t end = begin + static_cast<int64_t>(out.size() / sizeof(T));
  ForEachDraw(tensor.stream, begin, end, 8, [&](int64_t item, uint64_t draw) {
    const int64_t n = std::min<int64_t>(8, end - item);
    for (int64_t i = 0; i < n; ++i) values[item - begin + i] = level((draw >> (8 * i)) & 0xff);
  });
}

void FillBf16(const RandomTensor& tensor, int64_t first, absl::Span<std::byte> out) {
  bf16* values = reinterpret_cast<bf16*>(out.data());
  const int64_t begin = first / 2;
  const int64_t end = begin + static_cast<int64_t>(out.size() / 2);
  const float step = (tensor.high - tensor.low) * 0x1p-16f;
  ForEachDraw(tensor.stream, begin, end, 4, [&](int64_t item, uint64_t draw) {
    const int64_t n = std::min<int64_t>(4, end - item);
    for (int64_t i = 0; i < n; ++i) {
      const float x = static_cast<float>((draw >> (16 * i)) & 0xffff);
      values[item - begin + i] = ToBf16(tensor.low + step * x);
    }
  });
}

void FillFloat(const RandomTensor& tensor, int64_t first, absl::Span<std::byte> out) {
  float* values = reinterpret_cast<float*>(out.data());
  const int64_t begin = first / 4;
  const int64_t end = begin + static_cast<int64_t>(out.size() / 4);
  const float step = (tensor.high - tensor.low) * 0x1p-24f;
  ForEachDraw(tensor.stream, begin, end, 2, [&](int64_t item, uint64_t draw) {
    const int64_t n = std::min<int64_t>(2, end - item);
    for (int64_t i = 0; i < n; ++i) {
      values[item - begin + i] = tensor.low + step * static_cast<float>((draw >> (32 * i + 8)) & 0xffffff);
    }
  });
}

// The tensors of the autoencoder, in the order of the network.
class VaeTensors {
 public:
  explicit VaeTensors(uint64_t seed) : seed_(seed) {}

  void Gamma(const std::string& name, int64_t channels, bool attention) {
    Shape shape = {channels, 1, 1};
    if (!attention) shape.push_back(1);
    tensors_.push_back(Uniform(name, DType::kF32, shape, 0.9f, 1.1f, seed_));
  }
  void Conv(const std::string& prefix, Shape shape) {
    // One frame reads one temporal tap, so the others do not count as inputs.
    const int64_t inputs = shape[1] * shape[shape.size() - 1] * shape[shape.size() - 2];
    const int64_t out = shape[0];
    const float spread = Spread(inputs);
    tensors_.push_back(Uniform(prefix + ".weight", DType::kF32, std::move(shape), -spread, spread, seed_));
    tensors_.push_back(Uniform(prefix + ".bias", DType::kF32, {out}, -0.05f, 0.05f, seed_));
  }
  void Block(const std::string& prefix, int64_t in, int64_t out) {
    Gamma(prefix + ".residual.0.gamma", in, false);
    Conv(prefix + ".residual.2", {out, in, 3, 3, 3});
    Gamma(prefix + ".residual.3.gamma", out, false);
    Conv(prefix + ".residual.6", {out, out, 3, 3, 3});
    if (in != out) Conv(prefix + ".shortcut", {out, in, 1, 1, 1});
  }
  void Middle(const std::string& prefix, int64_t width) {
    Block(prefix + ".0", width, width);
    Gamma(prefix + ".1.norm.gamma", width, true);
    Conv(prefix + ".1.to_qkv", {3 * width, width, 1, 1});
    Conv(prefix + ".1.proj", {width, width, 1, 1});
    Block(prefix + ".2", width, width);
  }

  void Encoder(int64_t base) {
    Conv("encoder.conv1", {base, 12, 3, 3, 3});
    const int64_t widths[] = {base, 2 * base, 4 * base, 4 * base};
    int64_t width = base;
    for (int stage = 0; stage < 4; ++stage) {
      const std::string prefix = absl::StrCat("encoder.downsamples.", stage, ".downsamples.");
      for (int block = 0; block < 2; ++block) {
        Block(absl::StrCat(prefix, block), width, widths[stage]);
        width = widths[stage];
      }
      if (stage == 3) break;
      Conv(prefix + "2.resample.1", {width, width, 3, 3});
      if (stage > 0) Conv(prefix + "2.time_conv", {width, width, 3, 1, 1});
    }
    Middle("encoder.middle", width);
    Gamma("encoder.head.0.gamma", width, false);
    Conv("encoder.head.2", {2 * kLatentChannels, width, 3, 3, 3});
    Conv("conv1", {2 * kLatentChannels, 2 * kLatentChannels, 1, 1, 1});
  }

  void Decoder(int64_t base) {
    Conv("conv2", {kLatentChannels, kLatentChannels, 1, 1, 1});
    const int64_t widths[] = {4 * base, 4 * base, 2 * base, base};
    int64_t width = widths[0];
    Conv("decoder.conv1", {width, kLatentChannels, 3, 3, 3});
    Middle("decoder.middle", width);
    for (int stage = 0; stage < 4; ++stage) {
      const std::string prefix = absl::StrCat("decoder.upsamples.", stage, ".upsamples.");
      for (int block = 0; block < 3; ++block) {
        Block(absl::StrCat(prefix, block), width, widths[stage]);
        width = widths[stage];
      }
      if (stage == 3) break;
      Conv(prefix + "3.resample.1", {width, width, 3, 3});
      if (stage < 2) Conv(prefix + "3.time_conv", {2 * width, width, 3, 1, 1});
    }
    Gamma("decoder.head.0.gamma", width, false);
    Conv("decoder.head.2", {12, width, 3, 3, 3});
  }

  std::vector<RandomTensor> Take() { return std::move(tensors_); }

 private:
  const uint64_t seed_;
  std::vector<RandomTensor> tensors_;
};

}  // namespace

std::vector<RandomTensor> RandomTrunkTensors(const RandomDims& dims, uint64_t seed) {
  std::vector<RandomTensor> tensors;
  for (const TrunkTensor& from : TrunkTensors(dims.trunk)) {
    RandomTensor tensor = Uniform(from.name, from.dtype, from.shape, -0.1f, 0.1f, seed);
    switch (from.kind) {
      case TrunkTensorKind::kCodes:
        tensor.kind = RandomKind::kCodes;
        break;
      case TrunkTensorKind::kScalesBf16:
        tensor.kind = RandomKind::kScales;
        tensor.stream = StreamOf(absl::StripSuffix(from.name, "_bf16"), seed);
        break;
      case TrunkTensorKind::kScalesFp8:
        tensor.kind = RandomKind::kScalesFp8;
        tensor.stream = StreamOf(absl::StripSuffix(from.name, "_fp8"), seed);
        break;
      case TrunkTensorKind::kNorm:
        tensor.low = 0.9f;
        tensor.high = 1.1f;
        break;
      case TrunkTensorKind::kEmbedding:
      case TrunkTensorKind::kHead:
      case TrunkTensorKind::kAdapter:
      case TrunkTensorKind::kWeight:
        if (from.shape.size() == 2) {
          tensor.high = Spread(from.shape[1]);
          tensor.low = -tensor.high;
        }
        break;
      case TrunkTensorKind::kBias:
        break;
    }
    tensors.push_back(std::move(tensor));
  }
  tensors.push_back(Uniform("latent_pos_embed.pos_embed", DType::kBf16,
                            {kLatentPositions, dims.trunk.hidden_size}, -1.0f, 1.0f, seed));
  return tensors;
}

std::vector<RandomTensor> RandomVisionTensors(const RandomDims& dims, uint64_t seed) {
  std::vector<RandomTensor> tensors;
  for (const VisionTensor& from : VisionTensors(dims.vision)) {
    const bool vector = from.shape.size() == 1;
    const bool norm = vector && absl::EndsWith(from.name, ".weight");
    const float spread = vector ? 0.1f : Spread(NumElements(from.shape) / from.shape[0]);
    tensors.push_back(
        Uniform(from.name, DType::kBf16, from.shape, norm ? 0.9f : -spread, norm ? 1.1f : spread, seed));
  }
  return tensors;
}

std::vector<RandomTensor> RandomVaeTensors(const RandomDims& dims, uint64_t seed) {
  VaeTensors tensors(seed);
  tensors.Encoder(dims.vae_encoder_base);
  tensors.Decoder(dims.vae_decoder_base);
  return tensors.Take();
}

void FillRandom(const RandomTensor& tensor, int64_t first, absl::Span<std::byte> out) {
  switch (tensor.kind) {
    case RandomKind::kCodes:
      return FillCodes(tensor, first, out);
    case RandomKind::kScales:
      return FillLevels<bf16>(tensor, first, out, [](uint64_t level) { return Scales().wide[level]; });
    case RandomKind::kScalesFp8:
      return FillLevels<uint8_t>(tensor, first, out, [](uint64_t level) { return Scales().narrow[level]; });
    case RandomKind::kUniform:
      break;
  }
  if (tensor.dtype == DType::kF32) return FillFloat(tensor, first, out);
  FillBf16(tensor, first, out);
}

}  // namespace lancet

#include "tools/numerics/made_up_linears.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/number_formats.h"
#include "tools/numerics/linear_errors.h"

namespace lancet {
namespace {

constexpr int64_t kRows = 512;
constexpr int64_t kCols = 2048;
constexpr int64_t kTokens = 48;
constexpr int64_t kBlock = 16;
constexpr int64_t kLoudEvery = 128;
constexpr float kLoudness = 30.0f;

using Draw = std::function<float(int64_t index)>;

// The standard's distributions differ between libraries: these are made from its generator alone.
class Random {
 public:
  explicit Random(uint32_t seed) : bits_(seed) {}
  float Normal() {
    const double u = (bits_() + 1.0) / 4294967297.0;
    const double v = bits_() / 4294967296.0;
    return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v));
  }
  float StudentT(int degrees) {
    const float z = Normal();
    float chi = 0;
    for (int i = 0; i < degrees; ++i) {
      const float n = Normal();
      chi += n * n;
    }
    return z / std::sqrt(chi / static_cast<float>(degrees));
  }

 private:
  std::mt19937 bits_;
};

// The checkpoint's recipe: scale = amax / 6 in f32, the nearest code (the lower of two), scale stored twice.
void Quantise(const std::vector<float>& weights, MadeUpLinear& linear) {
  for (size_t block = 0; block < weights.size() / kBlock; ++block) {
    const float* w = weights.data() + block * kBlock;
    float largest = 1e-8f;
    for (int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(w[i]));
    const float scale = largest / kMaxE2m1;
    linear.scales.push_back(ToBf16(scale));
    linear.scales_fp8.push_back(ToE4m3(scale));
    uint8_t codes[kBlock];
    for (int64_t i = 0; i < kBlock; ++i) {
      const float r = w[i] / scale;
      uint8_t best = 0;
      for (uint8_t code = 1; code < 8; ++code) {
        if (std::fabs(FromE2m1(code) - std::fabs(r)) < std::fabs(FromE2m1(best) - std::fabs(r))) best = code;
      }
      codes[i] = static_cast<uint8_t>(best | (r < 0 ? 8 : 0));
    }
    for (int64_t i = 0; i < kBlock; i += 2) {
      linear.codes.push_back(static_cast<uint8_t>(codes[i] | codes[i + 1] << 4));
    }
  }
}

}  // namespace

LinearSample MadeUpLinear::sample() const {
  LinearSample sample;
  sample.weights = {rows, cols, codes.data(), cols / 2, scales.data(), cols / kBlock};
  sample.scales_fp8 = scales_fp8;
  sample.x = x;
  return sample;
}

std::vector<MadeUpLinear> MadeUpLinears() {
  Random random(1);
  struct Kind {
    std::string name;
    Draw draw;
  };
  const Kind weights[] = {
      {"normal 0.05", [&](int64_t) { return 0.05f * random.Normal(); }},
      {"normal 0.02", [&](int64_t) { return 0.02f * random.Normal(); }},
      {"normal 0.01", [&](int64_t) { return 0.01f * random.Normal(); }},
      {"normal 0.005", [&](int64_t) { return 0.005f * random.Normal(); }},
      {"heavy 0.01", [&](int64_t) { return 0.01f * random.StudentT(4); }},
  };
  const Kind activations[] = {
      {"normal 1", [&](int64_t) { return random.Normal(); }},
      {"normal 0.05", [&](int64_t) { return 0.05f * random.Normal(); }},
      {"normal 0.005", [&](int64_t) { return 0.005f * random.Normal(); }},
      {"heavy 1", [&](int64_t) { return random.StudentT(3); }},
      {"normal 1, loud channels",
       [&](int64_t i) { return random.Normal() * (i % kLoudEvery == 0 ? kLoudness : 1.0f); }},
  };
  std::vector<MadeUpLinear> linears;
  // Every kind of weights on the first kind of activations, every other of these on weights of 0.02.
  const auto add = [&](const Kind& w, const Kind& a) {
    MadeUpLinear& linear = linears.emplace_back();
    linear.name = absl::StrCat(w.name, "; ", a.name);
    linear.rows = kRows;
    linear.cols = kCols;
    std::vector<float> values(kRows * kCols);
    for (float& value : values) value = w.draw(0);
    Quantise(values, linear);
    for (int64_t i = 0; i < kTokens * kCols; ++i) linear.x.push_back(ToBf16(a.draw(i)));
  };
  for (const Kind& kind : weights) add(kind, activations[0]);
  for (size_t i = 1; i < std::size(activations); ++i) add(weights[1], activations[i]);
  return linears;
}

}  // namespace lancet

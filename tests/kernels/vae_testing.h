// Random maps, and how far a result may be from the double reference.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "common/bf16.h"
#include "kernels/feature_map.h"
#include "kernels/kernel_context.h"
#include "kernels/reference/vae_ref.h"

namespace lancet {

// A context bound to the calling thread; `isa` is lowered to what the machine has.
inline std::unique_ptr<KernelContext> TestContext(CpuIsa isa, int threads = 2) {
  auto ctx = KernelContext::CreateCpu({.threads = threads, .max_isa = isa, .use_bf16_dots = true});
  (*ctx)->BindCallingThread();
  return *std::move(ctx);
}

struct TestMap {
  int64_t height;
  int64_t width;
  int64_t channels;
  std::vector<bf16> values;

  TestMap(int64_t h, int64_t w, int64_t c) : height(h), width(w), channels(c), values(h * w * c) {}
  MapView<bf16> view() { return {values.data(), height, width, channels}; }
  ConstMapView<bf16> const_view() const { return {values.data(), height, width, channels}; }
};

inline std::vector<float> RandomFloats(int64_t count, float scale, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  // Representable in bf16, so that weights are not rounded.
  for (float& v : values) v = RoundToBf16(normal(random));
  return values;
}

inline TestMap RandomMap(int64_t height, int64_t width, int64_t channels, uint32_t seed) {
  TestMap map(height, width, channels);
  const std::vector<float> values = RandomFloats(height * width * channels, 1.0f, seed);
  for (size_t i = 0; i < values.size(); ++i) map.values[i] = ToBf16(values[i]);
  return map;
}

inline MapRef ToRef(const TestMap& map) {
  MapRef ref(map.height, map.width, map.channels);
  for (size_t i = 0; i < map.values.size(); ++i) ref.values[i] = ToFloat(map.values[i]);
  return ref;
}

// Largest difference in units of (|expected| + `scale`): scale is the size of the terms that were summed,
// whose rounding errors a small sum keeps.
inline double WorstError(const std::vector<bf16>& actual, const std::vector<double>& expected, double scale) {
  double worst = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(ToFloat(actual[i]) - expected[i]) / (std::abs(expected[i]) + scale);
    worst = error >= worst ? error : worst;
    if (std::isnan(error)) return INFINITY;
  }
  return worst;
}

// One rounding to bf16, with a little for f32 sums before it: half a unit in the last of 8 bits is 2^-9 of
// the value.
constexpr double kRounding = 0.004;

}  // namespace lancet

#include "tools/quantize/row_rounding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/number_formats.h"

namespace lancet {
namespace {

constexpr int kBlock = 16;
constexpr float kMaxCode = 6.0f;
// Bits of an f32 behind the six that a scale has.
constexpr int kStepBits = 18;
// Scales from the largest magnitude / kSmallest on are tried: with weights, a block may do well to clip a
// large value that matters little.
constexpr float kSmallest = 7.5f;
constexpr float kSmallestWeighted = 9.0f;
// Scales stay below the largest magnitude / 3.5: from there on half the scale is at least as good, since all
// codes up to 3 are there twice as large.
constexpr float kLargest = 3.5f;

// The body of a function once for any processor and once for those with AVX2; the same bits, as neither
// fuses multiply and add.
#define LANCET_INLINE inline __attribute__((always_inline))
#if defined(__x86_64__)
#define LANCET_AVX2 __attribute__((target("avx2")))
bool HasAvx2() {
  static const bool has = __builtin_cpu_supports("avx2") != 0;
  return has;
}
#else
#define LANCET_AVX2
bool HasAvx2() { return false; }
#endif

// The sixteen lanes of a block, in vectors as wide as a processor has. (Compilers make nothing of loops over
// arrays as short as this.)
struct Wide {
  typedef float Floats __attribute__((vector_size(32)));
  typedef int32_t Bits __attribute__((vector_size(32)));
};
struct Slim {
  typedef float Floats __attribute__((vector_size(16)));
  typedef int32_t Bits __attribute__((vector_size(16)));
};
template <typename V>
struct Lanes {
  static constexpr int kParts = kBlock * sizeof(float) / sizeof(typename V::Floats);
  typename V::Floats part[kParts];
};

template <typename V>
LANCET_INLINE Lanes<V> Load(const float* from) {
  Lanes<V> lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

template <typename V>
LANCET_INLINE Lanes<V> Magnitudes(const Lanes<V>& v) {
  Lanes<V> magnitudes;
  for (int p = 0; p < v.kParts; ++p) {
    magnitudes.part[p] =
        reinterpret_cast<typename V::Floats>(reinterpret_cast<typename V::Bits>(v.part[p]) & 0x7fffffff);
  }
  return magnitudes;
}

template <typename Floats, typename Bits>
LANCET_INLINE Floats Choose(Bits mask, Floats a, Floats b) {
  return reinterpret_cast<Floats>((mask & reinterpret_cast<Bits>(a)) | (~mask & reinterpret_cast<Bits>(b)));
}

// Halves on halves, in the same order whatever the width.
LANCET_INLINE float Sum(const Lanes<Wide>& lanes) {
  const Wide::Floats half = lanes.part[0] + lanes.part[1];
  Slim::Floats quarter[2];
  std::memcpy(quarter, &half, sizeof(quarter));
  quarter[0] += quarter[1];
  return (quarter[0][0] + quarter[0][2]) + (quarter[0][1] + quarter[0][3]);
}
LANCET_INLINE float Sum(const Lanes<Slim>& lanes) {
  const Slim::Floats quarter = (lanes.part[0] + lanes.part[2]) + (lanes.part[1] + lanes.part[3]);
  return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

template <typename V>
LANCET_INLINE float Largest(const Lanes<V>& lanes) {
  auto larger = lanes.part[0];
  for (int p = 1; p < lanes.kParts; ++p) {
    larger = Choose<typename V::Floats, typename V::Bits>(larger < lanes.part[p], lanes.part[p], larger);
  }
  float largest = larger[0];
  for (size_t i = 1; i < sizeof(larger) / sizeof(float); ++i) largest = std::max(largest, larger[i]);
  return largest;
}

// Codes nearest to r, the smaller magnitude on ties, with the signs of v.
template <typename V>
LANCET_INLINE void PutCodes(const Lanes<V>& r, const Lanes<V>& v, uint8_t* to) {
  int32_t code[kBlock];
  for (int p = 0; p < r.kParts; ++p) {
    const auto x = r.part[p];
    // A comparison that holds is -1.
    const typename V::Bits larger =
        (x > 0.25f) + (x > 0.75f) + (x > 1.25f) + (x > 1.75f) + (x > 2.5f) + (x > 3.5f) + (x > 5.0f);
    const typename V::Bits bits = (0 - larger) | ((v.part[p] < 0.0f) & 8);
    std::memcpy(code + p * (kBlock / r.kParts), &bits, sizeof(bits));
  }
  for (int i = 0; i < kBlock; i += 2) to[i / 2] = static_cast<uint8_t>(code[i] | (code[i + 1] << 4));
}

template <typename V>
LANCET_INLINE void RoundToLargestBody(const float* v, int64_t n, uint8_t* codes, float* scales) {
  for (int64_t first = 0; first < n; first += kBlock) {
    const Lanes<V> values = Load<V>(v + first);
    Lanes<V> magnitudes = Magnitudes(values);
    const float scale = std::max(Largest(magnitudes), 1e-8f) / kMaxCode;
    for (auto& part : magnitudes.part) part /= scale;
    PutCodes(magnitudes, values, codes + first / 2);
    scales[first / kBlock] = scale;
  }
}

// Magnitudes of the codes nearest to magnitudes * inverse. They are found by adding and taking away a power
// of two and a half, which rounds to the distance of neighbours there. Ties fall either way, which leaves
// errors as they are.
template <typename V>
LANCET_INLINE Lanes<V> NearestCodes(const Lanes<V>& magnitudes, float inverse) {
  using Floats = typename V::Floats;
  using Bits = typename V::Bits;
  constexpr float kUnit = 12582912.0f;  // floats around it are 1 apart
  const Floats zero = {};
  Lanes<V> nearest;
  for (int p = 0; p < nearest.kParts; ++p) {
    Floats r = magnitudes.part[p] * inverse;
    r = Choose<Floats, Bits>(r < kMaxCode, r, zero + kMaxCode);
    const Floats c = Choose<Floats, Bits>(r < 2.0f, zero + kUnit / 2,
                                          Choose<Floats, Bits>(r < 4.0f, zero + kUnit, zero + 2 * kUnit));
    nearest.part[p] = (r + c) - c;
  }
  return nearest;
}

template <typename V, bool kWeighted>
LANCET_INLINE double LargestErrorBody(const float* v, const float* weights, int64_t n) {
  double sum = 0;
  for (int64_t first = 0; first < n; first += kBlock) {
    const Lanes<V> magnitudes = Magnitudes(Load<V>(v + first));
    const Lanes<V> block_weights = kWeighted ? Load<V>(weights + first) : magnitudes;
    const float scale = std::max(Largest(magnitudes), 1e-5f) / kMaxCode;
    Lanes<V> off = NearestCodes(magnitudes, 1.0f / scale);
    for (int p = 0; p < off.kParts; ++p) {
      const auto d = magnitudes.part[p] - off.part[p] * scale;
      off.part[p] = kWeighted ? d * d * block_weights.part[p] : d * d;
    }
    sum += Sum(off);
  }
  return sum;
}

template <typename V, bool kWeighted>
LANCET_INLINE double SearchBody(const ScaleGrid& grid, const float* v, const float* weights, int64_t n,
                                uint8_t* codes, uint16_t* indices) {
  double sum = 0;
  const float* const scales = grid.scales();
  const float* const inverses = grid.inverses();
  const float* const e4m3_scales = grid.e4m3_scales();
  for (int64_t first = 0; first < n; first += kBlock) {
    const Lanes<V> values = Load<V>(v + first);
    const Lanes<V> magnitudes = Magnitudes(values);
    const Lanes<V> block_weights = kWeighted ? Load<V>(weights + first) : magnitudes;
    const float largest = Largest(magnitudes);
    const float end = largest / kLargest;
    int index = grid.FirstNotBelow(largest / (kWeighted ? kSmallestWeighted : kSmallest));
    int best = index;
    float least = std::numeric_limits<float>::infinity();
    do {
      Lanes<V> off = NearestCodes(magnitudes, inverses[index]);
      for (int p = 0; p < off.kParts; ++p) {
        const auto d = magnitudes.part[p] - off.part[p] * scales[index];
        const auto e = magnitudes.part[p] - off.part[p] * e4m3_scales[index];
        off.part[p] = kWeighted ? (d * d + e * e) * block_weights.part[p] : d * d + e * e;
      }
      const float error = Sum(off);
      if (error < least) {
        least = error;
        best = index;
      }
      ++index;
    } while (index < ScaleGrid::kScales && scales[index] < end);
    sum += least;
    if (indices == nullptr) continue;
    PutCodes(NearestCodes(magnitudes, inverses[best]), values, codes + first / 2);
    indices[first / kBlock] = static_cast<uint16_t>(best);
  }
  return sum / 2;
}

LANCET_AVX2 void RoundToLargestAvx2(const float* v, int64_t n, uint8_t* codes, float* scales) {
  RoundToLargestBody<Wide>(v, n, codes, scales);
}
template <bool kWeighted>
LANCET_AVX2 double LargestErrorAvx2(const float* v, const float* weights, int64_t n) {
  return LargestErrorBody<Wide, kWeighted>(v, weights, n);
}
template <bool kWeighted>
LANCET_AVX2 double SearchAvx2(const ScaleGrid& grid, const float* v, const float* weights, int64_t n,
                              uint8_t* codes, uint16_t* indices) {
  return SearchBody<Wide, kWeighted>(grid, v, weights, n, codes, indices);
}
void RoundToLargestPlain(const float* v, int64_t n, uint8_t* codes, float* scales) {
  RoundToLargestBody<Slim>(v, n, codes, scales);
}
template <bool kWeighted>
double LargestErrorPlain(const float* v, const float* weights, int64_t n) {
  return LargestErrorBody<Slim, kWeighted>(v, weights, n);
}
template <bool kWeighted>
double SearchPlain(const ScaleGrid& grid, const float* v, const float* weights, int64_t n, uint8_t* codes,
                   uint16_t* indices) {
  return SearchBody<Slim, kWeighted>(grid, v, weights, n, codes, indices);
}

template <bool kWeighted>
double Search(const ScaleGrid& grid, absl::Span<const float> v, absl::Span<const float> weights,
              absl::Span<uint8_t> codes, absl::Span<uint16_t> indices) {
  const auto search = HasAvx2() ? SearchAvx2<kWeighted> : SearchPlain<kWeighted>;
  return search(grid, v.data(), weights.data(), static_cast<int64_t>(v.size()), codes.data(),
                indices.empty() ? nullptr : indices.data());
}

}  // namespace

void RoundToLargest(absl::Span<const float> v, absl::Span<uint8_t> codes, absl::Span<float> scales) {
  const auto round = HasAvx2() ? RoundToLargestAvx2 : RoundToLargestPlain;
  round(v.data(), static_cast<int64_t>(v.size()), codes.data(), scales.data());
}

double LargestRoundingError(absl::Span<const float> v, absl::Span<const float> weights) {
  const int64_t n = static_cast<int64_t>(v.size());
  if (weights.empty()) {
    return (HasAvx2() ? LargestErrorAvx2<false> : LargestErrorPlain<false>)(v.data(), nullptr, n);
  }
  return (HasAvx2() ? LargestErrorAvx2<true> : LargestErrorPlain<true>)(v.data(), weights.data(), n);
}

ScaleGrid ScaleGrid::For(float largest) {
  ScaleGrid grid;
  if (largest > 0) {
    // Scales below largest / kLargest must not exceed 448 factor.
    int exponent = std::ilogb(largest / (kLargest * kMaxE4m3));
    if (std::ldexp(1.0f, exponent) * (kLargest * kMaxE4m3) < largest) ++exponent;
    // Every scale stays a normal f32, and so does its inverse.
    grid.factor_ = std::ldexp(1.0f, std::clamp(exponent, -110, 110));
  }
  const float first = std::ldexp(grid.factor_, -9);
  for (int index = 0; index < kScales; ++index) {
    const float scale = std::bit_cast<float>(std::bit_cast<uint32_t>(first) + (index << kStepBits));
    const uint8_t byte = std::max<uint8_t>(1, ToE4m3(scale / grid.factor_));
    grid.scales_[index] = scale;
    grid.inverses_[index] = 1.0f / scale;
    grid.bytes_[index] = byte;
    grid.e4m3_scales_[index] = FromE4m3(byte) * grid.factor_;
  }
  return grid;
}

int ScaleGrid::FirstNotBelow(float x) const {
  // Numbers of six significant bits follow one another in the upper bits of an f32.
  if (x <= scales_[0]) return 0;
  const uint32_t above = std::bit_cast<uint32_t>(x) - std::bit_cast<uint32_t>(scales_[0]);
  return static_cast<int>(std::min<uint32_t>((above + (1u << kStepBits) - 1) >> kStepBits, kScales - 1));
}

double SearchScales(const ScaleGrid& grid, absl::Span<const float> v, absl::Span<const float> weights,
                    absl::Span<uint8_t> codes, absl::Span<uint16_t> indices) {
  return weights.empty() ? Search<false>(grid, v, weights, codes, indices)
                         : Search<true>(grid, v, weights, codes, indices);
}

}  // namespace lancet

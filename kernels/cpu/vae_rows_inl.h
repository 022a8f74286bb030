// The loops of vae_rows.h, written so that compilers vectorise them. No include guard and no include of
// headers with inline functions: this text is compiled with several instruction sets, and the linker must
// never pick, say, the AVX-512 copy of a shared inline function for everybody. The including file defines
// LANCET_VAE_ROWS as the name of the table it exports.

namespace lancet {
namespace {

// Independent partial sums, so that a reduction vectorises without reordering being allowed in general: one
// AVX-512 register, four SSE ones.
constexpr int kLanes = 16;  // NOLINT(misc-definitions-in-headers)

inline float Load(bf16 x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16); }

inline void Store(float x, float* out) { *out = x; }
// As ToBf16.
inline void Store(float x, bf16* out) {
  const uint32_t u = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const uint32_t quiet = (u >> 16) | 0x40u;
  out->bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

// e^x for any float to about 1e-7 of itself (0 below -87, e^88 above 88; NaN stays): x = n ln 2 + r with |r|
// <= ln 2 / 2, a polynomial for e^r, n into the exponent.
inline float Exp(float x) {
  x = x > 88.0f ? 88.0f : x;
  const bool underflow = x < -87.0f;
  x = underflow ? -87.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  // ln 2 in two parts, so that n ln 2 is exact to twice the precision.
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t exponent = (__builtin_bit_cast(uint32_t, shifted) - 0x4b400000u + 127u) << 23;
  const float e = p * __builtin_bit_cast(float, exponent);
  return underflow ? 0.0f : e;
}

float SumOfSquares(const bf16* x, int64_t count) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float v = Load(x[i + l]);
      lanes[l] += v * v;
    }
  }
  for (int l = 0; i < count; ++i, ++l) {
    const float v = Load(x[i]);
    lanes[l] += v * v;
  }
  float sum = 0.0f;
  for (const float lane : lanes) sum += lane;
  return sum;
}

void ChannelNormRows(const bf16* x, int64_t pixels, int64_t channels, const float* scaled_gamma, bool silu,
                     bf16* y) {
  for (int64_t p = 0; p < pixels; ++p, x += channels, y += channels) {
    const float norm = __builtin_sqrtf(SumOfSquares(x, channels));
    const float inverse = 1.0f / (norm > 1e-12f || norm != norm ? norm : 1e-12f);
    if (silu) {
      for (int64_t i = 0; i < channels; ++i) {
        const float v = Load(x[i]) * inverse * scaled_gamma[i];
        Store(v / (1.0f + Exp(-v)), y + i);
      }
    } else {
      for (int64_t i = 0; i < channels; ++i) Store(Load(x[i]) * inverse * scaled_gamma[i], y + i);
    }
  }
}

void AddRow(const bf16* x, int64_t count, bf16* y) {
  for (int64_t i = 0; i < count; ++i) Store(Load(y[i]) + Load(x[i]), y + i);
}

void WidenRow(const bf16* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = Load(x[i]);
}

void RoundRow(const float* x, int64_t count, bool accumulate, bf16* y) {
  if (accumulate) {
    for (int64_t i = 0; i < count; ++i) Store(Load(y[i]) + x[i], y + i);
  } else {
    for (int64_t i = 0; i < count; ++i) Store(x[i], y + i);
  }
}

template <typename T>
void SoftmaxRow(float* scores, int64_t count, float scale, T* probabilities) {
  float highest[kLanes];
  for (float& h : highest) h = scores[0];
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) highest[l] = scores[i + l] > highest[l] ? scores[i + l] : highest[l];
  }
  for (; i < count; ++i) highest[0] = scores[i] > highest[0] ? scores[i] : highest[0];
  float top = highest[0];
  for (const float h : highest) top = h > top ? h : top;

  for (i = 0; i < count; ++i) scores[i] = Exp((scores[i] - top) * scale);
  float lanes[kLanes] = {};
  for (i = 0; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += scores[i + l];
  }
  for (int l = 0; i < count; ++i, ++l) lanes[l] += scores[i];
  float sum = 0.0f;
  for (const float lane : lanes) sum += lane;
  const float inverse = 1.0f / sum;
  for (i = 0; i < count; ++i) Store(scores[i] * inverse, probabilities + i);
}

void SoftmaxRowInPlace(float* scores, int64_t count, float scale) {
  SoftmaxRow(scores, count, scale, scores);
}

}  // namespace

VaeRows LANCET_VAE_ROWS() {
  return {&ChannelNormRows, &AddRow, &WidenRow, &RoundRow, &SoftmaxRow<bf16>, &SoftmaxRowInPlace};
}

}  // namespace lancet

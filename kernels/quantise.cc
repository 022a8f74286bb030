#include "kernels/quantise.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/number_formats.h"

namespace lancet {
namespace {

constexpr int64_t kBlock = 16;

float LargestMagnitude(absl::Span<const bf16> x) {
  float largest = 0.0f;
  for (const bf16 v : x) largest = std::max(largest, std::fabs(ToFloat(v)));
  return largest;
}

}  // namespace

float ScaleFactor(absl::Span<const bf16> scales) {
  const float largest = LargestMagnitude(scales);
  return largest > 0.0f ? largest / kMaxE4m3 : 1.0f;
}

uint8_t EncodeScale(bf16 scale, float factor) { return ToE4m3(ToFloat(scale) / factor); }

TwoLevelScales EncodeScales(absl::Span<const bf16> scales) {
  TwoLevelScales encoded;
  encoded.factor = ScaleFactor(scales);
  encoded.bytes.reserve(scales.size());
  for (const bf16 scale : scales) encoded.bytes.push_back(EncodeScale(scale, encoded.factor));
  return encoded;
}

float Nvfp4Factor(absl::Span<const bf16> x) {
  const float largest = LargestMagnitude(x);
  return largest > 0.0f ? largest / (kMaxE4m3 * kMaxE2m1) : 1.0f;
}

void QuantiseNvfp4Row(absl::Span<const bf16> x, float factor, absl::Span<uint8_t> codes,
                      absl::Span<uint8_t> scales) {
  const float inverse = 1.0f / factor;
  const int64_t blocks = static_cast<int64_t>(x.size()) / kBlock;
  for (int64_t block = 0; block < blocks; ++block) {
    const absl::Span<const bf16> values = x.subspan(block * kBlock, kBlock);
    const uint8_t byte = ToE4m3(LargestMagnitude(values) * inverse * (1.0f / kMaxE2m1));
    const float scale = FromE4m3(byte);
    const float multiplier = scale > 0.0f ? inverse / scale : 0.0f;
    scales[block] = byte;
    for (int64_t i = 0; i < kBlock; i += 2) {
      const uint8_t even = ToE2m1(ToFloat(values[i]) * multiplier);
      const uint8_t odd = ToE2m1(ToFloat(values[i + 1]) * multiplier);
      codes[(block * kBlock + i) / 2] = static_cast<uint8_t>(even | (odd << 4));
    }
  }
}

float QuantiseFp8Row(absl::Span<const bf16> x, absl::Span<uint8_t> bytes) {
  const float largest = LargestMagnitude(x);
  const float factor = largest > 0.0f ? largest / kMaxE4m3 : 1.0f;
  const float inverse = 1.0f / factor;
  for (size_t i = 0; i < x.size(); ++i) bytes[i] = ToE4m3(ToFloat(x[i]) * inverse);
  return factor;
}

float QuantiseInt8Row(absl::Span<const bf16> x, absl::Span<int8_t> values) {
  std::fill(values.begin(), values.end(), int8_t{0});
  uint16_t magnitude = 0;  // bits, of which infinity and then NaN are the largest
  for (const bf16 value : x) magnitude = std::max<uint16_t>(magnitude, value.bits & 0x7fff);
  if (magnitude >= 0x7f80) return std::numeric_limits<float>::quiet_NaN();
  const float largest = ToFloat(bf16{magnitude});
  if (largest < 0x1p-100f) return 1.0f;
  const float inverse = 127.0f / largest;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: behind it a float has no room for a fraction
  for (size_t i = 0; i < x.size(); ++i) {
    values[i] = static_cast<int8_t>(static_cast<int32_t>((ToFloat(x[i]) * inverse + kRound) - kRound));
  }
  return largest / 127.0f;
}

Fp8Weights EncodeFp8Weights(const Nvfp4MatrixView& w) {
  Fp8Weights encoded;
  encoded.rows = w.rows;
  encoded.cols = w.cols;
  encoded.bytes.resize(w.rows * w.cols);
  encoded.factors.resize(w.rows);
  std::vector<float> row(w.cols);
  for (int64_t r = 0; r < w.rows; ++r) {
    float largest = 0.0f;
    for (int64_t c = 0; c < w.cols; ++c) {
      const uint8_t byte = w.codes[r * w.codes_stride + c / 2];
      const uint8_t code = c % 2 == 0 ? byte & 15 : byte >> 4;
      row[c] = FromE2m1(code) * ToFloat(w.scales[r * w.scales_stride + c / kBlock]);
      largest = std::max(largest, std::fabs(row[c]));
    }
    const float factor = largest > 0.0f ? largest / kMaxE4m3 : 1.0f;
    encoded.factors[r] = factor;
    const float inverse = 1.0f / factor;
    for (int64_t c = 0; c < w.cols; ++c) encoded.bytes[r * w.cols + c] = ToE4m3(row[c] * inverse);
  }
  return encoded;
}

}  // namespace lancet

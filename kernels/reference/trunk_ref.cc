#include "kernels/reference/trunk_ref.h"

#include <algorithm>
#include <cmath>

namespace lancet::reference {
namespace {

double RoundDouble(double x) { return RoundToBf16(static_cast<float>(x)); }

double InverseRms(absl::Span<const bf16> x, double eps) {
  double sum = 0;
  for (const bf16 v : x) sum += static_cast<double>(ToFloat(v)) * ToFloat(v);
  return 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
}

}  // namespace

float Nvfp4Value(int code, bf16 scale) {
  static constexpr float kMagnitude[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  const float value = RoundToBf16(kMagnitude[code & 7] * ToFloat(scale));
  return (code & 8) != 0 ? -value : value;
}

std::vector<float> Nvfp4Dequantise(const uint8_t* codes, const bf16* scales, int64_t rows, int64_t cols) {
  std::vector<float> w;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const uint8_t byte = codes[r * (cols / 2) + c / 2];
      w.push_back(Nvfp4Value(c % 2 == 0 ? byte & 15 : byte >> 4, scales[r * (cols / 16) + c / 16]));
    }
  }
  return w;
}

std::vector<double> Linear(ConstMatrixView<bf16> x, absl::Span<const float> w, int64_t rows,
                           absl::Span<const bf16> bias) {
  std::vector<double> y;
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      double sum = bias.empty() ? 0.0 : ToFloat(bias[r]);
      for (int64_t c = 0; c < x.cols; ++c)
        sum += static_cast<double>(ToFloat(x.row(t)[c])) * w[r * x.cols + c];
      y.push_back(sum);
    }
  }
  return y;
}

std::vector<double> LinearMagnitude(ConstMatrixView<bf16> x, absl::Span<const float> w, int64_t rows) {
  std::vector<double> y;
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t c = 0; c < x.cols; ++c) {
        sum += std::abs(static_cast<double>(ToFloat(x.row(t)[c])) * w[r * x.cols + c]);
      }
      y.push_back(sum);
    }
  }
  return y;
}

std::vector<double> RmsNorm(ConstMatrixView<bf16> x, absl::Span<const bf16> weight, double eps) {
  std::vector<double> y;
  for (int64_t t = 0; t < x.rows; ++t) {
    const double inverse = InverseRms(absl::MakeSpan(x.row(t), x.cols), eps);
    for (int64_t c = 0; c < x.cols; ++c) {
      y.push_back(RoundDouble(ToFloat(x.row(t)[c]) * inverse) * ToFloat(weight[c]));
    }
  }
  return y;
}

std::vector<double> NormRopeHead(absl::Span<const bf16> head, absl::Span<const bf16> weight, double eps,
                                 absl::Span<const bf16> cos, absl::Span<const bf16> sin, bool wide) {
  const auto round = [wide](double v) { return wide ? v : RoundDouble(v); };
  const double inverse = InverseRms(head, eps);
  std::vector<double> n;
  for (size_t i = 0; i < head.size(); ++i) {
    n.push_back(round(round(ToFloat(head[i]) * inverse) * ToFloat(weight[i])));
  }
  const size_t half = head.size() / 2;
  std::vector<double> out(head.size());
  for (size_t f = 0; f < half; ++f) {
    const double c = ToFloat(cos[f]);
    const double s = ToFloat(sin[f]);
    out[f] = round(n[f] * c) - round(n[f + half] * s);
    out[f + half] = round(n[f + half] * c) + round(n[f] * s);
  }
  return out;
}

std::vector<double> RopeHead(absl::Span<const bf16> head, absl::Span<const bf16> cos,
                             absl::Span<const bf16> sin) {
  const size_t half = head.size() / 2;
  std::vector<double> out(head.size());
  for (size_t f = 0; f < half; ++f) {
    const double a = ToFloat(head[f]);
    const double b = ToFloat(head[f + half]);
    out[f] = a * ToFloat(cos[f]) - b * ToFloat(sin[f]);
    out[f + half] = b * ToFloat(cos[f]) + a * ToFloat(sin[f]);
  }
  return out;
}

double Gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

double Silu(double x) { return x / (1.0 + std::exp(-x)); }

std::vector<double> AttentionRow(absl::Span<const bf16> q, const std::vector<absl::Span<const bf16>>& keys,
                                 const std::vector<absl::Span<const bf16>>& values) {
  std::vector<double> scores;
  for (const absl::Span<const bf16> key : keys) {
    double score = 0;
    for (size_t d = 0; d < q.size(); ++d) score += static_cast<double>(ToFloat(q[d])) * ToFloat(key[d]);
    scores.push_back(score / std::sqrt(static_cast<double>(q.size())));
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  std::vector<double> out(q.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    const double p = std::exp(scores[i] - max);
    sum += p;
    for (size_t d = 0; d < q.size(); ++d) out[d] += p * ToFloat(values[i][d]);
  }
  for (double& v : out) v /= sum;
  return out;
}

}  // namespace lancet::reference

#include "tools/quantize/error_compensation.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/model_config.h"
#include "kernels/number_formats.h"

namespace lancet {
namespace {

constexpr int64_t kBlock = kNvfp4Block;
// Columns of a panel of the factorisation: what is outside is updated once per panel.
constexpr int64_t kPanel = 64;
// Rows that one piece of `u` serves while it is in a cache.
constexpr int64_t kRowBatch = 32;

double Dot(const double* a, const double* b, int64_t n) {
  double lanes[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (int j = 0; j < 4; ++j) lanes[j] += a[i + j] * b[i + j];
  }
  double sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// H = R Rᵀ with R upper triangular, in place of H's upper triangle. False if H is not positive definite.
bool FactorFromBelow(std::vector<double>& h, int64_t n, ThreadPool& pool) {
  for (int64_t end = n; end > 0; end -= std::min(end, kPanel)) {
    const int64_t begin = std::max<int64_t>(0, end - kPanel);
    // What the columns behind the panel take from it.
    pool.ParallelFor(end, 8, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) {
        for (int64_t j = std::max(i, begin); j < end; ++j) {
          h[i * n + j] -= Dot(&h[i * n] + end, &h[j * n] + end, n - end);
        }
      }
    });
    for (int64_t j = end - 1; j >= begin; --j) {
      const double square = h[j * n + j] - Dot(&h[j * n] + j + 1, &h[j * n] + j + 1, end - j - 1);
      if (!(square > 0)) return false;
      const double diagonal = std::sqrt(square);
      h[j * n + j] = diagonal;
      for (int64_t i = begin; i < j; ++i) {
        h[i * n + j] = (h[i * n + j] - Dot(&h[i * n] + j + 1, &h[j * n] + j + 1, end - j - 1)) / diagonal;
      }
    }
    pool.ParallelFor(begin, 8, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) {
        for (int64_t j = end - 1; j >= begin; --j) {
          h[i * n + j] =
              (h[i * n + j] - Dot(&h[i * n] + j + 1, &h[j * n] + j + 1, end - j - 1)) / h[j * n + j];
        }
      }
    });
  }
  return true;
}

// R^-1 of an upper triangular R, column by column.
std::vector<float> InverseOfUpper(const std::vector<double>& r, int64_t n, ThreadPool& pool) {
  std::vector<float> inverse(n * n, 0.0f);
  pool.ParallelFor(n, 1, [&](int64_t first, int64_t last, int) {
    std::vector<double> x(n);
    for (int64_t j = first; j < last; ++j) {
      x[j] = 1.0 / r[j * n + j];
      inverse[j * n + j] = static_cast<float>(x[j]);
      for (int64_t i = j - 1; i >= 0; --i) {
        x[i] = -Dot(&r[i * n] + i + 1, &x[i + 1], j - i) / r[i * n + i];
        inverse[i * n + j] = static_cast<float>(x[i]);
      }
    }
  });
  return inverse;
}

// Rounds columns [first, first + 16) of a row and leaves in `errors` what each column's rounding was off, in
// units of its diagonal of u.
// Returns the index of the scale.
int RoundBlock(const ScaleGrid& grid, absl::Span<const float> u, int64_t n, int64_t first, float* w,
               uint8_t* codes, float (&errors)[kBlock]) {
  float weights[kBlock];
  uint16_t index = 0;
  for (int64_t j = 0; j < kBlock; ++j) {
    const float diagonal = u[(first + j) * n + first + j];
    weights[j] = 1.0f / (diagonal * diagonal);
  }
  SearchScales(grid, absl::MakeConstSpan(w + first, kBlock), weights, absl::MakeSpan(codes, kBlock / 2),
               absl::MakeSpan(&index, 1));
  const float scale = grid.scale(index);
  for (int64_t j = 0; j < kBlock; ++j) {
    const float* row = &u[(first + j) * n + first];
    const uint8_t code = ToE2m1(w[first + j] / scale);
    const int shift = j % 2 * 4;
    codes[j / 2] = static_cast<uint8_t>((codes[j / 2] & (0xf0 >> shift)) | (code << shift));
    errors[j] = (w[first + j] - FromE2m1(code) * scale) / row[j];
    for (int64_t k = j + 1; k < kBlock; ++k) w[first + k] -= errors[j] * row[k];
  }
  return index;
}

}  // namespace

absl::StatusOr<std::vector<float>> CompensationMatrix(absl::Span<const float> xtx, absl::Span<const float> s,
                                                      int64_t n, double damping, ThreadPool& pool) {
  std::vector<double> h(n * n);
  double diagonal = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n; ++j) {
      const double scale = s.empty() ? 1.0 : 1.0 / (static_cast<double>(s[i]) * s[j]);
      h[i * n + j] = xtx[i * n + j] * scale;
    }
    diagonal += h[i * n + i];
  }
  const double added = std::max(damping * diagonal / static_cast<double>(n), 1e-30);
  for (int64_t i = 0; i < n; ++i) h[i * n + i] += added;
  if (!std::isfinite(diagonal) || !FactorFromBelow(h, n, pool)) {
    return absl::InvalidArgumentError(
        absl::StrCat("XᵀX of ", n, " inputs is not positive definite, which sums of x xᵀ are"));
  }
  return InverseOfUpper(h, n, pool);
}

PackedLinear PackCompensated(const SourceMatrix& matrix, absl::Span<const float> s, absl::Span<const float> u,
                             float largest, ThreadPool& pool) {
  const int64_t n = matrix.cols();
  const int64_t blocks = n / kBlock;
  const ScaleGrid grid = ScaleGrid::For(largest);
  PackedLinear packed(matrix.rows(), n);
  packed.factor = grid.factor();
  pool.ParallelFor((matrix.rows() + kRowBatch - 1) / kRowBatch, 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> w(kRowBatch * n);
    for (int64_t batch = begin; batch < end; ++batch) {
      const int64_t first_row = batch * kRowBatch;
      const int64_t rows = std::min(kRowBatch, matrix.rows() - first_row);
      for (int64_t r = 0; r < rows; ++r) {
        ReadScaledRow(matrix, first_row + r, s, absl::MakeSpan(w).subspan(r * n, n));
      }
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t rest = (b + 1) * kBlock;
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t at = (first_row + r) * blocks + b;
          float errors[kBlock];
          const int index =
              RoundBlock(grid, u, n, b * kBlock, &w[r * n], &packed.codes[at * (kBlock / 2)], errors);
          packed.SetScale(at, grid, index);
          for (int64_t j = 0; j < kBlock; ++j) {
            const float* row = &u[(b * kBlock + j) * n];
            float* to = &w[r * n];
            for (int64_t k = rest; k < n; ++k) to[k] -= errors[j] * row[k];
          }
        }
      }
    }
  });
  return packed;
}

}  // namespace lancet

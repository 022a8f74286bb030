#include "worker/engine/latent_preview.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/noise.h"
#include "common/status_macros.h"
#include "kernels/vae_ops.h"

namespace lancet {
namespace {

// Unknowns per colour: a weight per channel and the bias.
constexpr int kUnknowns = kLatentChannels + 1;

// Weight of the penalty on the size of the weights, relative to the mean square of a channel: settles
// channels that say nothing about colour without moving the others.
constexpr double kRidge = 1e-4;

using Matrix = std::array<std::array<double, kUnknowns>, kUnknowns>;
using Vector = std::array<double, kUnknowns>;

// Replaces the lower half of a symmetric positive definite matrix by its Cholesky factor; false if it is not.
bool Factorise(Matrix& a) {
  for (int j = 0; j < kUnknowns; ++j) {
    double diagonal = a[j][j];
    for (int k = 0; k < j; ++k) diagonal -= a[j][k] * a[j][k];
    if (!(diagonal > 0.0)) return false;
    a[j][j] = std::sqrt(diagonal);
    for (int i = j + 1; i < kUnknowns; ++i) {
      double sum = a[i][j];
      for (int k = 0; k < j; ++k) sum -= a[i][k] * a[j][k];
      a[i][j] = sum / a[j][j];
    }
  }
  return true;
}

// Solves L L^T x = b in place.
void Solve(const Matrix& l, Vector& b) {
  for (int i = 0; i < kUnknowns; ++i) {
    for (int k = 0; k < i; ++k) b[i] -= l[i][k] * b[k];
    b[i] /= l[i][i];
  }
  for (int i = kUnknowns - 1; i >= 0; --i) {
    for (int k = i + 1; k < kUnknowns; ++k) b[i] -= l[k][i] * b[k];
    b[i] /= l[i][i];
  }
}

double Apply(const LatentRgb& map, int colour, const float* latent) {
  double sum = map.bias[colour];
  for (int c = 0; c < kLatentChannels; ++c) sum += double{map.weight[colour][c]} * latent[c];
  return sum;
}

absl::Status CheckPairs(ConstMatrixView<float> latents, ConstMatrixView<float> colours, int64_t least) {
  if (latents.cols == kLatentChannels && colours.cols == 3 && latents.rows == colours.rows &&
      latents.rows >= least) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "preview fit: latents [", latents.rows, ", ", latents.cols, "] and colours [", colours.rows, ", ",
      colours.cols, "]; expected [n, ", kLatentChannels, "] and [n, 3], n >= ", least));
}

// Made-up normalised latents [side * side, 48]: normals in the four corners of a square (the far ones one
// latent outside), and every channel running evenly between them. Pictures are smooth for the most part; a
// decoder answers noise in ways of its own.
std::vector<float> MadeUpLatents(uint64_t seed, int64_t side) {
  constexpr float kSpread = 1.3f;  // of the latents of real pictures
  float corners[4][kLatentChannels];
  FillNormalNoise(seed, 4 * kLatentChannels, 0, absl::MakeSpan(&corners[0][0], 4 * kLatentChannels));
  std::vector<float> latents(side * side * kLatentChannels);
  for (int64_t i = 0; i < side; ++i) {
    for (int64_t j = 0; j < side; ++j) {
      const float b = static_cast<float>(i) / static_cast<float>(side);
      const float a = static_cast<float>(j) / static_cast<float>(side);
      for (int64_t c = 0; c < kLatentChannels; ++c) {
        latents[(i * side + j) * kLatentChannels + c] =
            kSpread * ((1 - b) * ((1 - a) * corners[0][c] + a * corners[1][c]) +
                       b * ((1 - a) * corners[2][c] + a * corners[3][c]));
      }
    }
  }
  return latents;
}

}  // namespace

absl::StatusOr<RgbImage> LatentsToRgb(const LatentRgb& map, ConstMatrixView<float> latents, int64_t height,
                                      int64_t width) {
  if (height < 1 || width < 1 || latents.rows != height * width || latents.cols != kLatentChannels) {
    return absl::InvalidArgumentError(absl::StrCat("latent preview: latents are [", latents.rows, ", ",
                                                   latents.cols, "]; expected [", height, " x ", width, ", ",
                                                   kLatentChannels, "]"));
  }
  std::vector<float> planes(3 * latents.rows);
  for (int colour = 0; colour < 3; ++colour) {
    for (int64_t r = 0; r < latents.rows; ++r) {
      planes[colour * latents.rows + r] = static_cast<float>(Apply(map, colour, latents.row(r)));
    }
  }
  return PixelsToImage(planes, height, width);
}

absl::StatusOr<LatentRgbQuality> MeasureLatentRgb(const LatentRgb& map, ConstMatrixView<float> latents,
                                                  ConstMatrixView<float> colours) {
  LANCET_RETURN_IF_ERROR(CheckPairs(latents, colours, 1));
  double residual = 0;
  double total = 0;
  const auto n = static_cast<double>(latents.rows);
  for (int colour = 0; colour < 3; ++colour) {
    double mean = 0;
    for (int64_t r = 0; r < latents.rows; ++r) mean += colours.row(r)[colour] / n;
    for (int64_t r = 0; r < latents.rows; ++r) {
      const double actual = colours.row(r)[colour];
      residual += std::pow(actual - Apply(map, colour, latents.row(r)), 2);
      total += std::pow(actual - mean, 2);
    }
  }
  if (!std::isfinite(residual)) {
    return absl::InvalidArgumentError("preview fit: latents, colours or map hold NaN or infinity");
  }
  return LatentRgbQuality{total > 0 ? 1 - residual / total : 1, std::sqrt(residual / (3 * n))};
}

absl::StatusOr<LatentRgbFit> FitLatentRgb(ConstMatrixView<float> latents, ConstMatrixView<float> colours) {
  LANCET_RETURN_IF_ERROR(CheckPairs(latents, colours, kUnknowns));
  Matrix normal{};
  std::array<Vector, 3> right{};
  for (int64_t r = 0; r < latents.rows; ++r) {
    Vector row;
    std::copy_n(latents.row(r), kLatentChannels, row.begin());
    row[kLatentChannels] = 1.0;
    for (int i = 0; i < kUnknowns; ++i) {
      for (int j = 0; j <= i; ++j) normal[i][j] += row[i] * row[j];
      for (int colour = 0; colour < 3; ++colour) right[colour][i] += row[i] * colours.row(r)[colour];
    }
  }
  double mean_square = 0;
  for (int c = 0; c < kLatentChannels; ++c) mean_square += normal[c][c] / kLatentChannels;
  for (int c = 0; c < kLatentChannels; ++c) normal[c][c] += kRidge * mean_square;
  if (!std::isfinite(mean_square) || !Factorise(normal)) {
    return absl::InvalidArgumentError("preview fit: the latents hold NaN or infinity, or are all zero");
  }

  LatentRgbFit fit;
  for (int colour = 0; colour < 3; ++colour) {
    Solve(normal, right[colour]);
    for (int c = 0; c < kLatentChannels; ++c)
      fit.map.weight[colour][c] = static_cast<float>(right[colour][c]);
    fit.map.bias[colour] = static_cast<float>(right[colour][kLatentChannels]);
  }
  LANCET_ASSIGN_OR_RETURN(fit.quality, MeasureLatentRgb(fit.map, latents, colours));
  return fit;
}

absl::Status BlockMeans(absl::Span<const float> planes, int64_t height, int64_t width,
                        MatrixView<float> colours) {
  constexpr int64_t kSide = kPixelsPerLatent;
  if (height < 1 || width < 1 || static_cast<int64_t>(planes.size()) != 3 * height * width * kSide * kSide ||
      colours.rows != height * width || colours.cols != 3) {
    return absl::InvalidArgumentError(absl::StrCat("block means: ", planes.size(), " values for ", height,
                                                   " x ", width, " blocks into [", colours.rows, ", ",
                                                   colours.cols, "]"));
  }
  for (int64_t b = 0; b < height * width; ++b) {
    for (int64_t colour = 0; colour < 3; ++colour) {
      double sum = 0;
      for (int64_t i = 0; i < kSide; ++i) {
        const int64_t row = colour * height * kSide + b / width * kSide + i;
        for (int64_t j = 0; j < kSide; ++j) sum += planes[row * width * kSide + b % width * kSide + j];
      }
      colours.row(b)[colour] = static_cast<float>(sum / (kSide * kSide));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<LatentRgbFit> FitLatentRgbFromDecoder(const KernelContext& ctx, VaeDecoder& decoder) {
  // Many small pictures rather than a few large ones. Share of the variance of a real demo picture's colours
  // that the fit explains: 64 of 4 x 4 latents 72 %, 16 of 8 x 8 (the same cost) 20 %, real latents 94 %.
  constexpr int64_t kPictures = 64;
  const int64_t side = std::min<int64_t>(4, static_cast<int64_t>(std::sqrt(decoder.max_latents())));
  const int64_t rows = side * side;
  std::vector<float> latents;
  std::vector<float> colours(kPictures * rows * 3);
  for (int64_t p = 0; p < kPictures; ++p) {
    const std::vector<float> one = MadeUpLatents(p, side);
    LANCET_ASSIGN_OR_RETURN(const std::vector<float> planes,
                            decoder.Decode(ctx, {one.data(), rows, kLatentChannels}, side, side));
    LANCET_RETURN_IF_ERROR(BlockMeans(planes, side, side, {&colours[p * rows * 3], rows, 3}));
    latents.insert(latents.end(), one.begin(), one.end());
  }
  return FitLatentRgb({latents.data(), kPictures * rows, kLatentChannels},
                      {colours.data(), kPictures * rows, 3});
}

}  // namespace lancet

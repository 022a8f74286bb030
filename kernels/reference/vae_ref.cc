#include "kernels/reference/vae_ref.h"

#include <algorithm>
#include <cmath>

namespace lancet {

MapRef ConvRef(const MapRef& x, const ConvShape& shape, const std::vector<float>& weight,
               const std::vector<float>& bias, const ConvPadding& padding) {
  const int64_t k = shape.kernel;
  MapRef y((x.height + padding.top + padding.bottom - k) / shape.stride + 1,
           (x.width + padding.left + padding.right - k) / shape.stride + 1, shape.out_channels);
  for (int64_t i = 0; i < y.height; ++i) {
    for (int64_t j = 0; j < y.width; ++j) {
      for (int64_t o = 0; o < shape.out_channels; ++o) {
        double sum = bias[o];
        for (int64_t a = 0; a < k; ++a) {
          for (int64_t e = 0; e < k; ++e) {
            const int64_t r = i * shape.stride + a - padding.top;
            const int64_t s = j * shape.stride + e - padding.left;
            if (r < 0 || r >= x.height || s < 0 || s >= x.width) continue;
            for (int64_t c = 0; c < shape.in_channels; ++c) {
              sum += double{weight[((o * shape.in_channels + c) * k + a) * k + e]} * x.at(r, s, c);
            }
          }
        }
        y.at(i, j, o) = sum;
      }
    }
  }
  return y;
}

MapRef ChannelNormRef(const MapRef& x, const std::vector<float>& gamma, bool silu) {
  MapRef y(x.height, x.width, x.channels);
  for (int64_t p = 0; p < x.height * x.width; ++p) {
    double squares = 0;
    for (int64_t c = 0; c < x.channels; ++c) squares += std::pow(x.values[p * x.channels + c], 2);
    const double norm = std::max(std::sqrt(squares), 1e-12);
    for (int64_t c = 0; c < x.channels; ++c) {
      const double v =
          x.values[p * x.channels + c] / norm * std::sqrt(static_cast<double>(x.channels)) * gamma[c];
      y.values[p * x.channels + c] = silu ? v / (1 + std::exp(-v)) : v;
    }
  }
  return y;
}

MapRef UpsampleRef(const MapRef& x) {
  MapRef y(2 * x.height, 2 * x.width, x.channels);
  for (int64_t i = 0; i < y.height; ++i) {
    for (int64_t j = 0; j < y.width; ++j) {
      for (int64_t c = 0; c < y.channels; ++c) y.at(i, j, c) = x.at(i / 2, j / 2, c);
    }
  }
  return y;
}

MapRef DupUpRef(const MapRef& x, int64_t out_channels, int64_t frame_factor) {
  MapRef y(2 * x.height, 2 * x.width, out_channels);
  const int64_t r = out_channels * frame_factor * 4 / x.channels;
  const int64_t it = frame_factor - 1;
  for (int64_t i = 0; i < y.height; ++i) {
    for (int64_t j = 0; j < y.width; ++j) {
      for (int64_t o = 0; o < out_channels; ++o) {
        const int64_t index = ((o * frame_factor + it) * 2 + i % 2) * 2 + j % 2;
        y.at(i, j, o) = x.at(i / 2, j / 2, index / r);
      }
    }
  }
  return y;
}

MapRef AvgDownRef(const MapRef& x, int64_t out_channels, int64_t frame_factor) {
  MapRef y(x.height / 2, x.width / 2, out_channels);
  const int64_t g = x.channels * frame_factor * 4 / out_channels;
  for (int64_t i = 0; i < y.height; ++i) {
    for (int64_t j = 0; j < y.width; ++j) {
      // One group of 4 f values per channel, in the order that the means walk.
      std::vector<double> values;
      for (int64_t c = 0; c < x.channels; ++c) {
        for (int64_t frame = 0; frame < frame_factor; ++frame) {
          for (int64_t a = 0; a < 2; ++a) {
            for (int64_t b = 0; b < 2; ++b) {
              values.push_back(frame + 1 < frame_factor ? 0.0 : x.at(2 * i + a, 2 * j + b, c));
            }
          }
        }
      }
      for (int64_t o = 0; o < out_channels; ++o) {
        for (int64_t m = 0; m < g; ++m) y.at(i, j, o) += values[o * g + m] / static_cast<double>(g);
      }
    }
  }
  return y;
}

std::vector<double> UnpatchifyRef(const MapRef& x) {
  const int64_t height = 2 * x.height;
  const int64_t width = 2 * x.width;
  std::vector<double> planes(3 * height * width);
  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        planes[(c * height + i) * width + j] = x.at(i / 2, j / 2, 4 * c + 2 * (j % 2) + i % 2);
      }
    }
  }
  return planes;
}

MapRef SpatialAttentionRef(const MapRef& qkv) {
  const int64_t channels = qkv.channels / 3;
  const int64_t pixels = qkv.height * qkv.width;
  MapRef y(qkv.height, qkv.width, channels);
  const auto row = [&](int64_t p, int64_t part) { return &qkv.values[p * qkv.channels + part * channels]; };
  for (int64_t p = 0; p < pixels; ++p) {
    std::vector<double> weights(pixels);
    double top = -INFINITY;
    for (int64_t k = 0; k < pixels; ++k) {
      double dot = 0;
      for (int64_t c = 0; c < channels; ++c) dot += row(p, 0)[c] * row(k, 1)[c];
      weights[k] = dot / std::sqrt(static_cast<double>(channels));
      top = std::max(top, weights[k]);
    }
    double sum = 0;
    for (double& w : weights) sum += w = std::exp(w - top);
    for (int64_t k = 0; k < pixels; ++k) {
      for (int64_t c = 0; c < channels; ++c) y.values[p * channels + c] += weights[k] / sum * row(k, 2)[c];
    }
  }
  return y;
}

}  // namespace lancet

// The image autoencoder's kernels as plain loops in double, straight from their definitions: the oracle for
// tests.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/conv.h"

namespace lancet {

// A map [height, width, channels].
struct MapRef {
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 0;
  std::vector<double> values;

  MapRef(int64_t h, int64_t w, int64_t c) : height(h), width(w), channels(c), values(h * w * c) {}
  double& at(int64_t i, int64_t j, int64_t c) { return values[(i * width + j) * channels + c]; }
  double at(int64_t i, int64_t j, int64_t c) const { return values[(i * width + j) * channels + c]; }
};

// weight: [out, in, kernel, kernel], bias: [out].
MapRef ConvRef(const MapRef& x, const ConvShape& shape, const std::vector<float>& weight,
               const std::vector<float>& bias, const ConvPadding& padding);

// Channel norm, with SiLU if `silu`.
MapRef ChannelNormRef(const MapRef& x, const std::vector<float>& gamma, bool silu);

MapRef UpsampleRef(const MapRef& x);

// The stage shortcut of a clip of one frame, with the frame kept that a clip keeps.
MapRef DupUpRef(const MapRef& x, int64_t out_channels, int64_t frame_factor);

// The stage shortcut of the encoder for a clip of one frame: the padded clip is built, zero frames and all.
MapRef AvgDownRef(const MapRef& x, int64_t out_channels, int64_t frame_factor);

// planes [3, 2 h, 2 w].
std::vector<double> UnpatchifyRef(const MapRef& x);

// qkv: 3 c channels.
MapRef SpatialAttentionRef(const MapRef& qkv);

}  // namespace lancet

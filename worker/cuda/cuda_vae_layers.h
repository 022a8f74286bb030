// What the two halves of the autoencoder have in common on a device: layers read from a checkpoint, residual
// blocks, the attention of the middle block, and memory for maps.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "common/state_dict.h"
#include "kernels/cuda/conv2d.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/device_array.h"
#include "kernels/cuda/matmul.h"

namespace lancet {

// Sizes and tensors as in worker/model/vae/vae_weights.h.
struct CudaVaeResBlock {
  DeviceArray<float> norm1, norm2;
  std::optional<CudaConv2d> conv1, conv2, shortcut;
  int64_t in() const { return conv1->shape().in_channels; }
  int64_t out() const { return conv1->shape().out_channels; }
};

struct CudaVaeAttention {
  DeviceArray<float> norm;
  std::optional<CudaConv2d> qkv, proj;
};

struct CudaVaeStage {
  std::vector<CudaVaeResBlock> blocks;
  std::optional<CudaConv2d> resample;
  int64_t frame_factor = 1;
  int64_t out() const { return blocks.front().out(); }
};

// Tensor names to layers. Errors as those of ReadVaeConv and ReadVaeVector (worker/model/vae/vae_tensors.h).
class CudaVaeLoader {
 public:
  CudaVaeLoader(const CudaContext& ctx, const StateDict& dict) : ctx_(ctx), dict_(dict) {}

  // `in` and `out` 0: any. Input channels are filled up with zeros to a multiple of 8.
  absl::StatusOr<CudaConv2d> Conv(const std::string& prefix, int64_t kernel, int64_t in, int64_t out,
                                  int64_t stride = 1) const;
  absl::StatusOr<DeviceArray<float>> Gamma(const std::string& name, int64_t channels) const;
  absl::StatusOr<DeviceArray<float>> Upload(const std::vector<float>& values) const;
  absl::StatusOr<CudaVaeResBlock> Block(const std::string& prefix, int64_t in, int64_t out) const;
  absl::StatusOr<CudaVaeAttention> Attention(const std::string& prefix, int64_t channels) const;
  // A stage of `blocks` residual blocks; the first sets its width to `out`, or to anything if that is 0.
  absl::StatusOr<CudaVaeStage> Stage(const std::string& prefix, int64_t blocks, int64_t in, int64_t out,
                                     int64_t frame_factor) const;

 private:
  const CudaContext& ctx_;
  const StateDict& dict_;
};

// One picture at a time: both halves use the same memory, in the order of the stream. Not thread-safe.
class CudaVaeLayers {
 public:
  CudaVaeLayers(const CudaContext& ctx, MatmulPlans& matmul) : ctx_(ctx), matmul_(matmul) {}

  // A stage's input, its residual stream, inner maps, what a convolution reads, and one more.
  enum Map { kInput, kStream, kInner, kNormed, kSpare, kMaps };

  // Takes memory for at least so many values, or for the attention of so many pixels. Before any layer runs.
  absl::Status Reserve(Map map, int64_t values);
  absl::Status ReserveAttention(int64_t channels, int64_t pixels);
  absl::Status ReservePixels(int64_t pixels);

  bf16* map(Map map) const { return maps_[map].data(); }
  DeviceArray<float>& planes() { return planes_; }  // [3, pixels]
  DeviceArray<uint8_t>& rgb() { return rgb_; }      // [pixels, 3]
  int64_t resident_bytes() const;

  // y = x + block(x). y may be x if the widths agree. inner: a map shaped as y; uses kNormed.
  absl::Status Residual(CudaVaeResBlock& block, const bf16* x, int64_t height, int64_t width, bf16* inner,
                        bf16* y);
  // x += proj(attention(norm(x))). inner: shaped as x; qkv: with three times its channels; uses kNormed.
  absl::Status Attend(CudaVaeAttention& attention, int64_t height, int64_t width, bf16* inner, bf16* qkv,
                      bf16* x);

 private:
  const CudaContext& ctx_;
  MatmulPlans& matmul_;
  DeviceArray<bf16> maps_[kMaps];
  DeviceArray<float> scores_;        // [pixels, pixels] of the middle block, or as many rows as fit
  DeviceArray<bf16> probabilities_;  // likewise
  DeviceArray<bf16> values_;         // [channels, pixels]
  DeviceArray<float> planes_;
  DeviceArray<uint8_t> rgb_;
};

}  // namespace lancet

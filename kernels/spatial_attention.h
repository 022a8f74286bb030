// Single-head attention among all pixels of one map: the middle block of an image autoencoder.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "kernels/feature_map.h"
#include "kernels/kernel_context.h"

namespace lancet {

// Holds scratch for `max_pixels` and the compiled products of the last map size. Each thread takes chunks of
// queries, so that scores need 64 x pixels floats a thread and never pixels x pixels. One caller at a time;
// calls take the context that it was created with, or one of no more threads.
class SpatialAttention {
 public:
  // ResourceExhausted if the scratch can't be had.
  static absl::StatusOr<SpatialAttention> Create(const KernelContext& ctx, int64_t channels,
                                                 int64_t max_pixels);
  SpatialAttention(SpatialAttention&&) noexcept;
  SpatialAttention& operator=(SpatialAttention&&) noexcept;
  ~SpatialAttention();

  // out = softmax(q k^T / sqrt(channels)) v, scores and softmax in f32; probabilities are rounded to bf16
  // where products are of bf16 (kernels/conv.h). Elsewhere qkv is widened in the context's SharedScratch.
  //   qkv: [h, w, 3 * channels], q first, then k, then v   out: [h, w, channels], no overlap
  // InvalidArgument if shapes disagree; ResourceExhausted if memory is out.
  absl::Status Forward(const KernelContext& ctx, ConstMapView<bf16> qkv, MapView<bf16> out);

 private:
  struct Impl;
  explicit SpatialAttention(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lancet

// 2-D convolution over one [height, width, channels] map, through oneDNN.
//
// Maps are bf16 on every machine, sums f32, rounded once. Products are of bf16 where the machine multiplies
// it natively; elsewhere, as oneDNN's bf16 fallback is a scalar loop, rows are widened to f32 a few megabytes
// at a time, so both add the same products. Nothing is ever unfolded (no im2col).
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "kernels/feature_map.h"
#include "kernels/kernel_context.h"

namespace lancet {

struct ConvShape {
  int64_t out_channels = 0;
  int64_t in_channels = 0;
  int64_t kernel = 3;  // 1 or 3, in both directions
  int64_t stride = 1;  // 1 or 2, in both directions
};

// Zero pixels around the input, 0..2 on each side.
struct ConvPadding {
  int64_t top = 0;
  int64_t left = 0;
  int64_t bottom = 0;
  int64_t right = 0;
  friend bool operator==(const ConvPadding&, const ConvPadding&) = default;
};

// Weights in the layout that oneDNN wants, and the compiled primitives of the last few map sizes. Runs on the
// threads of the context it was created with, which must outlive it, and in its SharedScratch; results do not
// depend on the number of threads. One caller at a time: Forward updates the cache of primitives.
class Conv2d {
 public:
  // weight: [out, in, kernel, kernel]   bias: [out]. Copies, rounded to bf16.
  // InvalidArgument if the extents disagree; Internal, naming the shape, if oneDNN refuses it.
  static absl::StatusOr<Conv2d> Create(const KernelContext& ctx, const ConvShape& shape,
                                       absl::Span<const float> weight, absl::Span<const float> bias);
  Conv2d(Conv2d&&) noexcept;
  Conv2d& operator=(Conv2d&&) noexcept;
  ~Conv2d();

  const ConvShape& shape() const;

  // y = conv(x) + bias, or y += conv(x) + bias with `accumulate` (the sum is rounded once).
  //   x: [h, w, in]   y: [(top + h + bottom - kernel) / stride + 1, likewise, out], no overlap with x
  // InvalidArgument if shapes disagree; ResourceExhausted if memory for widened rows is out.
  absl::Status Forward(ConstMapView<bf16> x, const ConvPadding& padding, bool accumulate, MapView<bf16> y);

 private:
  struct Impl;
  explicit Conv2d(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lancet

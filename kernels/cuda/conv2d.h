// 2-D convolution of one [height, width, channels] bf16 map through cuDNN, with bias and, if wanted, an
// addend.
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <list>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "kernels/cuda/cuda_context.h"

namespace lancet {

struct CudaConvShape {
  int64_t out_channels = 0;
  int64_t in_channels = 0;
  int64_t kernel = 3;  // 1 or 3, in both directions
  // 1: a kernel of 3 pads by one zero pixel on every side. 2: nothing is padded, sides become (n - 1) / 2.
  int64_t stride = 1;
};

// Not thread-safe. Work is enqueued on the context's stream.
class CudaConv2d {
 public:
  // weight: [out, in, kernel, kernel], bias: [out]; rounded to bf16 and copied.
  static absl::StatusOr<CudaConv2d> Create(const CudaContext& ctx, const CudaConvShape& shape,
                                           absl::Span<const float> weight, absl::Span<const float> bias);
  CudaConv2d(CudaConv2d&&) noexcept;
  CudaConv2d& operator=(CudaConv2d&&) noexcept;
  ~CudaConv2d();

  const CudaConvShape& shape() const { return shape_; }

  // y = conv(x) + bias (+ addend), sums in f32, rounded once. x: [height, width, in], y and addend: [height,
  // width, out] or with the sides that the stride makes; y may be the addend. Plans are made per map size,
  // and the last few are kept.
  absl::Status Forward(const bf16* x, int64_t height, int64_t width, const bf16* addend, bf16* y);

 private:
  struct Plan;
  CudaConv2d(const CudaContext& ctx, const CudaConvShape& shape);
  absl::StatusOr<Plan*> PlanFor(int64_t height, int64_t width);

  const CudaContext* ctx_;
  CudaConvShape shape_;
  DeviceArray<bf16> weight_;  // [out, kernel, kernel, in]
  DeviceArray<bf16> bias_;
  std::list<Plan> plans_;  // most recently used first
};

}  // namespace lancet

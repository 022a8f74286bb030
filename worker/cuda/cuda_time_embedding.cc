#include "worker/cuda/cuda_time_embedding.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/row_ops.h"
#include "worker/model/latent_embedding.h"

namespace lancet {

absl::StatusOr<DeviceArray<bf16>> EmbedTimes(const CudaContext& ctx, const CudaTrunkWeights& weights,
                                             absl::Span<const float> times, absl::Duration timeout) {
  const int64_t features = weights.time0.cols;
  const int64_t hidden = weights.time0.rows;
  const auto rows = static_cast<int64_t>(times.size());
  std::vector<bf16> rounded;
  for (const float t : times) {
    for (const float f : TimeFeatures(t, features)) rounded.push_back(ToBf16(f));
  }
  LANCET_ASSIGN_OR_RETURN(const auto x, DeviceArray<bf16>::CopyOf(rounded, ctx.stream()));
  LANCET_ASSIGN_OR_RETURN(const auto inner, DeviceArray<bf16>::Create(rows * hidden));
  LANCET_ASSIGN_OR_RETURN(DeviceArray<bf16> out, DeviceArray<bf16>::Create(rows * hidden));
  const auto layer = [&](const CudaDense& dense, const bf16* from, bf16* to) -> absl::Status {
    for (int64_t first = 0; first < rows; first += cuda::kMaxFewRows) {
      cuda::FewRowsArgs args;
      args.x = from + first * dense.cols;
      args.x_stride = dense.cols;
      args.tokens = static_cast<int>(std::min<int64_t>(cuda::kMaxFewRows, rows - first));
      args.dense = dense.weight.data();
      args.rows = dense.rows;
      args.cols = dense.cols;
      args.bias = dense.bias.data();
      args.y = to + first * dense.rows;
      args.y_stride = dense.rows;
      LANCET_CUDA_RETURN_IF_ERROR(cuda::FewRowsLinear(args, ctx.stream()));
    }
    return absl::OkStatus();
  };
  LANCET_RETURN_IF_ERROR(layer(weights.time0, x.data(), inner.data()));
  LANCET_CUDA_RETURN_IF_ERROR(cuda::Silu(inner.data(), rows * hidden, ctx.stream()));
  LANCET_RETURN_IF_ERROR(layer(weights.time2, inner.data(), out.data()));
  LANCET_RETURN_IF_ERROR(ctx.Wait(timeout));
  return out;
}

}  // namespace lancet

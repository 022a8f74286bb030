#include "worker/cuda/nvfp4_probe.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/bf16.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/scale_tiles.h"
#include "worker/cuda/cuda_linear.h"

namespace lancet {
namespace {

// Not a multiple of a tile, so that its edge is tried, too.
constexpr int64_t kTokens = 300;
// Rounding uniform activations to NVFP4 costs about 0.1 of their norm; a wrong scale layout costs far more.
constexpr double kMostError = 0.2;
constexpr absl::Duration kTimeout = absl::Seconds(30);

}  // namespace

bool Nvfp4Probe::Works(int64_t rows, int64_t cols) {
  const auto [entry, fresh] = known_.try_emplace({rows, cols}, false);
  if (!fresh) return entry->second;
  const absl::Status status = Try(rows, cols);
  entry->second = status.ok();
  if (!status.ok() && !logged_) {
    logged_ = true;
    LogInfo("NVFP4 products are made in bf16 where this device refuses them",
            {{"rows", rows}, {"cols", cols}, {"reason", std::string(status.message())}});
  }
  return entry->second;
}

absl::Status Nvfp4Probe::Try(int64_t rows, int64_t cols) {
  if (cols % 64 != 0 || rows % 16 != 0) {
    return absl::UnimplementedError(absl::StrCat("[", rows, ", ", cols, "] has no whole scale tiles"));
  }
  uint64_t state = 88172645463325252u;
  const auto random = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<uint32_t>(state >> 32);
  };
  std::vector<uint8_t> codes(rows * cols / 2);
  for (uint8_t& byte : codes) byte = static_cast<uint8_t>(random());
  std::vector<bf16> scales(rows * cols / 16);
  for (bf16& scale : scales) scale = ToBf16(0.005f + 0.01f * static_cast<float>(random() >> 8) * 0x1p-24f);
  std::vector<bf16> x(kTokens * cols);
  for (bf16& value : x) value = ToBf16(static_cast<float>(random() >> 8) * 0x1p-23f - 1.0f);
  CudaLinearForms forms;
  forms.bf16 = true;
  forms.nvfp4 = true;
  const Nvfp4MatrixView view = {rows, cols, codes.data(), cols / 2, scales.data(), cols / 16};
  LANCET_ASSIGN_OR_RETURN(const CudaLinear linear, CudaLinear::Create(ctx_, {view}, {}, forms));

  const cudaStream_t stream = ctx_.stream();
  LANCET_ASSIGN_OR_RETURN(const auto device_x, DeviceArray<bf16>::CopyOf(x, stream));
  LANCET_ASSIGN_OR_RETURN(const auto x_codes, DeviceArray<uint8_t>::Create(kTokens * cols / 2));
  const std::vector<uint8_t> no_scales(ScaleTileBytes(kTokens, cols / 16));
  LANCET_ASSIGN_OR_RETURN(const auto x_scales, DeviceArray<uint8_t>::CopyOf(no_scales, stream));
  const std::vector<float> zero = {0.0f};
  LANCET_ASSIGN_OR_RETURN(const auto beta, DeviceArray<float>::CopyOf(zero, stream));
  LANCET_ASSIGN_OR_RETURN(const auto y, DeviceArray<bf16>::Create(kTokens * rows));
  cuda::RowOutput output;
  output.fp4_codes = x_codes.data();
  output.fp4_scales = x_scales.data();
  output.fp4_factor = linear.nvfp4_activation_factor();
  LANCET_CUDA_RETURN_IF_ERROR(cuda::QuantiseRows(device_x.data(), cols, kTokens, cols, output, stream));

  MatmulShape shape;
  shape.tokens = kTokens;
  shape.rows = rows;
  shape.cols = cols;
  shape.x_stride = cols;
  shape.y_stride = rows;
  MatmulArgs args;
  args.y = y.data();
  std::vector<bf16> results[2] = {std::vector<bf16>(kTokens * rows), std::vector<bf16>(kTokens * rows)};
  for (const bool native : {false, true}) {
    shape.input = native ? MatmulInput::kNvfp4 : MatmulInput::kBf16;
    args.x = native ? static_cast<const void*>(x_codes.data()) : device_x.data();
    args.w = native ? static_cast<const void*>(linear.nvfp4_codes()) : linear.dense();
    if (native) {
      args.x_scales = x_scales.data();
      args.w_scales = linear.nvfp4_scales();
      args.alpha = linear.nvfp4_alpha();
      args.beta = beta.data();
    }
    LANCET_RETURN_IF_ERROR(matmul_.Run(shape, args));
    LANCET_RETURN_IF_ERROR(y.CopyTo(absl::MakeSpan(results[native ? 1 : 0]), stream));
    LANCET_RETURN_IF_ERROR(ctx_.Wait(kTimeout));
  }
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < results[0].size(); ++i) {
    const double expected = ToFloat(results[0][i]);
    const double off = ToFloat(results[1][i]) - expected;
    difference += off * off;
    norm += expected * expected;
  }
  const double error = std::sqrt(difference / norm);
  // Written so that NaN fails.
  if (!(error < kMostError)) {
    return absl::InternalError(
        absl::StrCat("[", rows, ", ", cols, "]: ", error, " off the product of expanded weights"));
  }
  return absl::OkStatus();
}

}  // namespace lancet

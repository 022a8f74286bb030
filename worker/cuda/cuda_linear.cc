#include "worker/cuda/cuda_linear.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/model_config.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/expand_weights.h"
#include "kernels/quantise.h"
#include "kernels/scale_tiles.h"

namespace lancet {
namespace {

constexpr absl::Duration kUploadTimeout = absl::Seconds(60);

// Codes and scales of all parts, stacked and dense.
struct Stacked {
  std::vector<uint8_t> codes;
  std::vector<bf16> scales;
  int64_t rows = 0;
  float largest_scale = 0;
};

void AppendRow(const Nvfp4MatrixView& part, int64_t r, Stacked& stacked) {
  const uint8_t* codes = part.codes + r * part.codes_stride;
  stacked.codes.insert(stacked.codes.end(), codes, codes + part.cols / 2);
  const bf16* scales = part.scales + r * part.scales_stride;
  stacked.scales.insert(stacked.scales.end(), scales, scales + part.cols / kNvfp4Block);
}

// `turn`: rows of a part before the next part's; 0: all.
Stacked Stack(absl::Span<const Nvfp4MatrixView> parts, int64_t turn) {
  Stacked stacked;
  for (const Nvfp4MatrixView& part : parts) stacked.rows += part.rows;
  if (turn == 0) {
    for (const Nvfp4MatrixView& part : parts) {
      for (int64_t r = 0; r < part.rows; ++r) AppendRow(part, r, stacked);
    }
  } else {
    for (int64_t first = 0; first < parts[0].rows; first += turn) {
      for (const Nvfp4MatrixView& part : parts) {
        for (int64_t r = first; r < first + turn; ++r) AppendRow(part, r, stacked);
      }
    }
  }
  for (const bf16 scale : stacked.scales) {
    stacked.largest_scale = std::max(stacked.largest_scale, std::fabs(ToFloat(scale)));
  }
  return stacked;
}

absl::Status CheckParts(absl::Span<const LinearView> parts, bool in_turns) {
  const int64_t cols = parts[0].cols();
  if (cols % 16 != 0 || cols > cuda::kMaxFewRowsCols) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a Linear of ", cols, " inputs; expected a multiple of 16, at most ", cuda::kMaxFewRowsCols));
  }
  for (const LinearView& part : parts) {
    if (part.cols() == cols &&
        (!in_turns || (part.rows() == parts[0].rows() && part.rows() % cuda::kGateUpTurn == 0))) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "a part of [", part.rows(), ", ", part.cols(), "] in a Linear whose first part is [", parts[0].rows(),
        ", ", cols, in_turns ? "]; parts in turns have equal rows, a multiple of 8" : "]"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CudaLinear> CudaLinear::Create(const CudaContext& ctx, absl::Span<const LinearView> parts,
                                              absl::Span<const bf16> bias, const CudaLinearForms& forms) {
  if (!AnyBf16(parts)) return Create(ctx, Nvfp4Parts(parts), bias, forms);
  LANCET_RETURN_IF_ERROR(CheckParts(parts, forms.in_turns));
  CudaLinear linear;
  linear.cols_ = parts[0].cols();
  for (const LinearView& part : parts) linear.rows_ += part.rows();
  const std::vector<bf16> stacked = StackBf16(parts, forms.in_turns ? cuda::kGateUpTurn : 0);
  LANCET_ASSIGN_OR_RETURN(linear.dense_, DeviceArray<bf16>::CopyOf(stacked, ctx.stream()));
  if (!bias.empty()) {
    LANCET_ASSIGN_OR_RETURN(linear.bias_, DeviceArray<bf16>::CopyOf(bias, ctx.stream()));
  }
  LANCET_RETURN_IF_ERROR(ctx.Wait(kUploadTimeout));
  return linear;
}

absl::StatusOr<CudaLinear> CudaLinear::Create(const CudaContext& ctx, absl::Span<const Nvfp4MatrixView> parts,
                                              absl::Span<const bf16> bias, const CudaLinearForms& forms) {
  CudaLinear linear;
  if (parts.empty()) return linear;
  linear.cols_ = parts[0].cols;
  std::vector<LinearView> views;
  for (const Nvfp4MatrixView& part : parts) views.push_back({false, part, {}});
  LANCET_RETURN_IF_ERROR(CheckParts(views, forms.in_turns));
  const Stacked stacked = Stack(parts, forms.in_turns ? cuda::kGateUpTurn : 0);
  linear.rows_ = stacked.rows;
  const cudaStream_t stream = ctx.stream();
  LANCET_ASSIGN_OR_RETURN(const auto codes, DeviceArray<uint8_t>::CopyOf(stacked.codes, stream));
  LANCET_ASSIGN_OR_RETURN(const auto scales, DeviceArray<bf16>::CopyOf(stacked.scales, stream));
  if (!bias.empty()) {
    LANCET_ASSIGN_OR_RETURN(linear.bias_, DeviceArray<bf16>::CopyOf(bias, stream));
  }
  const int64_t elements = linear.rows_ * linear.cols_;
  if (forms.few_rows) {
    // Keeps scale * 2^(126 - shift) below 2^127.
    const int shift = stacked.largest_scale < 1.5f ? 0 : std::ilogb(stacked.largest_scale) + 1;
    const int64_t lanes = cuda::PanelWeights::Lanes(linear.rows_, linear.cols_);
    LANCET_ASSIGN_OR_RETURN(linear.panel_codes_, DeviceArray<uint4>::Create(lanes));
    LANCET_ASSIGN_OR_RETURN(linear.panel_scales_, DeviceArray<uint32_t>::Create(lanes));
    LANCET_CUDA_RETURN_IF_ERROR(cuda::PackPanels(codes.data(), scales.data(), linear.rows_, linear.cols_,
                                                 std::ldexp(1.0f, 126 - shift), linear.panel_codes_.data(),
                                                 linear.panel_scales_.data(), stream));
    linear.panels_.codes = linear.panel_codes_.data();
    linear.panels_.scales = linear.panel_scales_.data();
    linear.panels_.scale_up = std::ldexp(1.0f, shift);
    linear.panels_.rows = linear.rows_;
    linear.panels_.cols = linear.cols_;
  }
  if (forms.bf16) {
    LANCET_ASSIGN_OR_RETURN(linear.dense_, DeviceArray<bf16>::Create(elements));
    LANCET_CUDA_RETURN_IF_ERROR(cuda::ExpandToBf16(codes.data(), scales.data(), linear.rows_, linear.cols_,
                                                   linear.dense_.data(), linear.cols_, stream));
  }
  if (forms.fp8) {
    LANCET_ASSIGN_OR_RETURN(linear.fp8_, DeviceArray<uint8_t>::Create(elements));
    LANCET_ASSIGN_OR_RETURN(linear.factors_, DeviceArray<float>::Create(linear.rows_));
    LANCET_CUDA_RETURN_IF_ERROR(cuda::ExpandToFp8(codes.data(), scales.data(), linear.rows_, linear.cols_,
                                                  linear.fp8_.data(), linear.cols_, linear.factors_.data(),
                                                  stream));
  }
  if (forms.nvfp4) {
    if (linear.cols_ % 64 != 0 || linear.rows_ % 16 != 0) {
      return absl::InvalidArgumentError(absl::StrCat("NVFP4 products of [", linear.rows_, ", ", linear.cols_,
                                                     "]: expected whole 16s of rows and 64s of columns"));
    }
    const int64_t blocks = linear.cols_ / 16;
    LANCET_ASSIGN_OR_RETURN(linear.nvfp4_codes_, DeviceArray<uint8_t>::CopyOf(stacked.codes, stream));
    LANCET_ASSIGN_OR_RETURN(linear.nvfp4_scales_,
                            DeviceArray<uint8_t>::Create(ScaleTileBytes(linear.rows_, blocks)));
    const float factor = forms.weight_factor > 0.0f ? forms.weight_factor : ScaleFactor(stacked.scales);
    const std::vector<float> factors = {factor, forms.activation_factor, factor * forms.activation_factor};
    LANCET_ASSIGN_OR_RETURN(linear.nvfp4_factors_, DeviceArray<float>::CopyOf(factors, stream));
    LANCET_CUDA_RETURN_IF_ERROR(cuda::TileScales(scales.data(), linear.rows_, blocks,
                                                 linear.nvfp4_factors_.data(), linear.nvfp4_scales_.data(),
                                                 stream));
    LANCET_RETURN_IF_ERROR(ctx.Wait(kUploadTimeout));
  }
  LANCET_RETURN_IF_ERROR(ctx.Wait(kUploadTimeout));
  return linear;
}

void CudaLinear::SetWeights(cuda::FewRowsArgs& args) const {
  args.panels = panels_;
  args.dense = panels_.codes == nullptr ? dense_.data() : nullptr;
  args.rows = rows_;
  args.cols = cols_;
}

int64_t CudaLinear::resident_bytes() const {
  return panel_codes_.bytes() + panel_scales_.bytes() + dense_.bytes() + fp8_.bytes() + factors_.bytes() +
         bias_.bytes() + nvfp4_codes_.bytes() + nvfp4_scales_.bytes();
}

}  // namespace lancet

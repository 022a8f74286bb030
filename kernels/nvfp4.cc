#include "kernels/nvfp4.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cpu/nvfp4_kernel.h"
#include "kernels/cpu/panel_dispatch.h"
#include "kernels/quantise.h"
#include "kernels/shape_check.h"

namespace lancet {
namespace {

constexpr int64_t kBlockCols = 16;

Nvfp4Kernel KernelFor(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512Bf16:
      return Nvfp4KernelAvx512Bf16();
    case CpuIsa::kAvx512:
      return Nvfp4KernelAvx512();
    case CpuIsa::kAvx2:
      return Nvfp4KernelAvx2();
    case CpuIsa::kPortable:
      break;
  }
  return Nvfp4KernelPortable();
}

absl::Status CheckPart(const Nvfp4MatrixView& part, int64_t cols, size_t index) {
  if (part.cols != cols || part.cols % kBlockCols != 0 || part.rows < 0) {
    return absl::InvalidArgumentError(absl::StrCat("Nvfp4Weights: part ", index, " is [", part.rows, ", ",
                                                   part.cols, "]; expected [n, ", cols,
                                                   "] with columns in whole blocks of ", kBlockCols));
  }
  if (part.rows == 0 || part.cols == 0) return absl::OkStatus();
  if (part.codes == nullptr || part.scales == nullptr || part.codes_stride < part.cols / 2 ||
      part.scales_stride < part.cols / kBlockCols) {
    return absl::InvalidArgumentError(absl::StrCat("Nvfp4Weights: part ", index, " of [", part.rows, ", ",
                                                   part.cols, "] has code stride ", part.codes_stride,
                                                   " and scale stride ", part.scales_stride, ", or no data"));
  }
  return absl::OkStatus();
}

int64_t ScaleSize(BlockScales form) { return form == BlockScales::kBf16 ? 2 : 1; }

Nvfp4KernelArgs ArgsOf(const Nvfp4Weights& w) {
  Nvfp4KernelArgs args;
  args.rows = w.rows();
  args.cols = w.cols();
  args.panels = w.panels();
  args.plain_scales = w.plain_scales();
  return args;
}

// One row of the stacked parts.
struct SourceRow {
  const uint8_t* codes = nullptr;  // null beyond the last row
  const bf16* scales = nullptr;
};

bool IsPlain(bf16 scale) {
  const int exponent = scale.bits >> 7 & 255;
  return (scale.bits & 0x7fff) == 0 || (exponent > 16 && exponent < 240);
}

// The factor of E4M3 scales: over all parts, as EncodeScales says. InvalidArgument for a scale that is not
// finite.
absl::StatusOr<float> E4m3Factor(absl::Span<const Nvfp4MatrixView> parts) {
  uint16_t largest = 0;
  for (const Nvfp4MatrixView& part : parts) {
    for (int64_t r = 0; r < part.rows; ++r) {
      const bf16* scales = part.scales + r * part.scales_stride;
      for (int64_t i = 0; i < part.cols / kBlockCols; ++i) {
        largest = std::max<uint16_t>(largest, scales[i].bits & 0x7fff);
      }
    }
  }
  if (largest >= 0x7f80) return absl::InvalidArgumentError("Nvfp4Weights: a block scale is not finite");
  return ScaleFactor({bf16{largest}});
}

// What becomes of each bf16 scale.
std::vector<uint8_t> E4m3Table(float factor) {
  std::vector<uint8_t> table(1 << 16);
  for (size_t bits = 0; bits < table.size(); ++bits) {
    table[bits] = EncodeScale(bf16{static_cast<uint16_t>(bits)}, factor);
  }
  return table;
}

uint8_t* PackCodes(const SourceRow* rows, int64_t cols, uint8_t* to) {
  for (int64_t i = 0; i < cols / 8; ++i) {
    for (int64_t r = 0; r < Nvfp4Weights::kPanelRows; ++r, to += 4) {
      if (rows[r].codes == nullptr) {
        std::memset(to, 0, 4);
      } else {
        std::memcpy(to, rows[r].codes + 4 * i, 4);
      }
    }
  }
  return to;
}

// Scales through `table`, or as they are without one. Returns whether all of them are plain.
bool PackScales(const SourceRow* rows, int64_t cols, const std::vector<uint8_t>& table, uint8_t* to) {
  bool plain = true;
  for (int64_t i = 0; i < cols / kBlockCols; ++i) {
    for (int64_t r = 0; r < Nvfp4Weights::kPanelRows; ++r) {
      const bf16 scale = rows[r].scales == nullptr ? bf16{} : rows[r].scales[i];
      plain &= IsPlain(scale);
      if (table.empty()) {
        std::memcpy(to, &scale, sizeof(scale));
        to += sizeof(scale);
      } else {
        *to++ = table[scale.bits];
      }
    }
  }
  return plain;
}

}  // namespace

absl::StatusOr<Nvfp4Weights> Nvfp4Weights::Pack(const KernelContext& ctx,
                                                absl::Span<const Nvfp4MatrixView> parts, BlockScales form) {
  Nvfp4Weights w;
  w.scale_form_ = form;
  if (parts.empty()) return w;
  w.cols_ = parts[0].cols;
  for (size_t i = 0; i < parts.size(); ++i) {
    LANCET_RETURN_IF_ERROR(CheckPart(parts[i], w.cols_, i));
    w.rows_ += parts[i].rows;
  }
  std::vector<uint8_t> table;
  if (form == BlockScales::kE4m3) {
    LANCET_ASSIGN_OR_RETURN(w.scale_factor_, E4m3Factor(parts));
    table = E4m3Table(w.scale_factor_);
  }
  const int64_t panels = (w.rows_ + kPanelRows - 1) / kPanelRows;
  std::vector<SourceRow> rows(static_cast<size_t>(panels * kPanelRows));
  size_t next = 0;
  for (const Nvfp4MatrixView& part : parts) {
    for (int64_t r = 0; r < part.rows; ++r) {
      rows[next++] = {part.codes + r * part.codes_stride, part.scales + r * part.scales_stride};
    }
  }
  const int64_t panel_bytes = (w.cols_ / 2 + w.cols_ / kBlockCols * ScaleSize(form)) * kPanelRows;
  LANCET_ASSIGN_OR_RETURN(w.panels_, PackedBuffer::Create(static_cast<size_t>(panels * panel_bytes)));
  if (panel_bytes == 0) return w;
  std::atomic<bool> plain = true;
  uint8_t* first = w.panels_.data();
  ctx.pool().ParallelFor(panels, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      const SourceRow* from = rows.data() + p * kPanelRows;
      uint8_t* scales = PackCodes(from, w.cols_, first + p * panel_bytes);
      if (!PackScales(from, w.cols_, table, scales)) plain = false;
    }
  });
  w.plain_scales_ = plain;
  return w;
}

int64_t Nvfp4Weights::resident_bytes() const { return static_cast<int64_t>(panels_.size()); }

namespace {

absl::Status CheckForm(const Nvfp4Weights& w) {
  if (w.scale_form() == BlockScales::kBf16) return absl::OkStatus();
  return absl::InvalidArgumentError("Nvfp4Gemm: weights with E4M3 scales are of products with 8-bit rows");
}

}  // namespace

absl::Status Nvfp4Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                       absl::Span<const bf16> bias, MatrixView<bf16> y) {
  LANCET_RETURN_IF_ERROR(CheckForm(w));
  return PanelProduct("Nvfp4Gemm", ctx, KernelFor(ctx.product_isa()), ArgsOf(w), x, bias, y);
}

absl::Status Nvfp4Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                       MatrixView<float> y) {
  LANCET_RETURN_IF_ERROR(CheckForm(w));
  return PanelProduct("Nvfp4Gemm", ctx, KernelFor(ctx.product_isa()), ArgsOf(w), x, {}, y);
}

}  // namespace lancet

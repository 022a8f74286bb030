#include "kernels/int8_gemm.h"

#include "kernels/cpu/int8_kernel.h"
#include "kernels/cpu/panel_dispatch.h"

namespace lancet {
namespace {

Int8Kernel KernelFor(const KernelContext& ctx) {
  switch (ctx.isa()) {
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAvx512:
      return ctx.has_vnni() ? Int8KernelAvx512Vnni() : Int8KernelAvx512();
    case CpuIsa::kAvx2:
      return ctx.has_vnni() ? Int8KernelAvxVnni() : Int8KernelAvx2();
    case CpuIsa::kPortable:
      break;
  }
  return Int8KernelPortable();
}

Int8KernelArgs ArgsOf(const Nvfp4Weights& w) {
  Int8KernelArgs args;
  args.rows = w.rows();
  args.cols = w.cols();
  args.panels = w.panels();
  args.e4m3_scales = w.scale_form() == BlockScales::kE4m3;
  args.scale_factor = w.scale_factor();
  return args;
}

}  // namespace

absl::Status Int8Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                      absl::Span<const bf16> bias, MatrixView<bf16> y) {
  return PanelProduct("Int8Gemm", ctx, KernelFor(ctx), ArgsOf(w), x, bias, y);
}

absl::Status Int8Gemm(const KernelContext& ctx, ConstMatrixView<bf16> x, const Nvfp4Weights& w,
                      MatrixView<float> y) {
  return PanelProduct("Int8Gemm", ctx, KernelFor(ctx), ArgsOf(w), x, {}, y);
}

}  // namespace lancet

#include "worker/model/head_linear.h"

#include "common/status_macros.h"

namespace lancet {

absl::StatusOr<HeadLinear> HeadLinear::Create(const KernelContext& ctx, ConstMatrixView<bf16> weight,
                                              HeadForm form) {
  HeadLinear head;
  head.form_ = form;
  if (form == HeadForm::kBf16) {
    LANCET_ASSIGN_OR_RETURN(head.bf16_, Bf16Weights::Pack(ctx, weight));
  } else {
    LANCET_ASSIGN_OR_RETURN(head.bytes_, ByteWeights::Pack(ctx, weight));
  }
  return head;
}

absl::Status HeadLinear::Run(const KernelContext& ctx, ConstMatrixView<bf16> x, MatrixView<bf16> y) const {
  return form_ == HeadForm::kBf16 ? Bf16Gemm(ctx, x, bf16_, {}, y) : ByteGemm(ctx, x, bytes_, y);
}

}  // namespace lancet

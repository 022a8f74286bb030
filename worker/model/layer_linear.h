// A Linear of the trunk in the arithmetic that was chosen for it.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/tensor_view.h"
#include "kernels/bf16_gemm.h"
#include "kernels/emulated_gemm.h"
#include "kernels/kernel_context.h"
#include "kernels/nvfp4.h"
#include "worker/loader/linear_policy.h"
#include "worker/loader/weight_loader.h"

namespace lancet {

class LayerLinear {
 public:
  // Stacks `parts` by rows (all with the same cols). `single_rows`: rows that are multiplied in kW4A16
  // whatever the choice may come, so that the weights are kept for them, too. Copies; the views may go away.
  static absl::StatusOr<LayerLinear> Create(const KernelContext& ctx, absl::Span<const Nvfp4MatrixView> parts,
                                            const LinearChoice& choice, bool single_rows);

  // The same of Linears of which the checkpoint may keep some in bf16: then all are multiplied in bf16,
  // whatever the choice.
  static absl::StatusOr<LayerLinear> Create(const KernelContext& ctx, absl::Span<const LinearView> parts,
                                            const LinearChoice& choice, bool single_rows);

  LayerLinear() = default;
  int64_t rows() const { return dense_ ? bf16_.rows() : emulated() ? encoded_.rows() : plain_.rows(); }
  int64_t cols() const { return dense_ ? bf16_.cols() : emulated() ? encoded_.cols() : plain_.cols(); }

  // y = x * w^T + bias, rounded once to bf16. single: [tokens], not 0 for rows that an emulated mode
  // multiplies as in kW4A16; or empty for none. Otherwise as Nvfp4Gemm. FailedPrecondition for single rows
  // that Create was not told of.
  absl::Status Run(const KernelContext& ctx, ConstMatrixView<bf16> x, absl::Span<const uint8_t> single,
                   absl::Span<const bf16> bias, MatrixView<bf16> y) const;
  // The same without rounding or bias: the partial sums of a row-parallel Linear.
  absl::Status Run(const KernelContext& ctx, ConstMatrixView<bf16> x, absl::Span<const uint8_t> single,
                   MatrixView<float> y) const;

 private:
  bool emulated() const { return mode_ == LinearMode::kW4A8Fp8 || mode_ == LinearMode::kW4A4; }

  LinearMode mode_ = LinearMode::kW4A16;
  bool dense_ = false;
  bool single_rows_ = false;
  Nvfp4Weights plain_;  // unless emulated, and for single rows
  EmulatedWeights encoded_;
  Bf16Weights bf16_;  // if dense_
};

}  // namespace lancet

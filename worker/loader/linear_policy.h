// In which arithmetic each NVFP4 Linear of the trunk is multiplied.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/activation_factors.h"
#include "common/checkpoint.h"

namespace lancet {

// How many rows of NVFP4 Linears are multiplied.
//   kW4A16    weights expanded to bf16, activations in bf16
//   kW4A8Fp8  weights re-encoded to E4M3 with a factor per output row, activations in E4M3 with one per row
//   kW4A8Int8 codes and bf16 scales as they are, activations as integers with a factor per row: of CPUs alone
//   kW4A4     NVFP4 on both sides: codes as they are, block scales as E4M3 under a factor
// kW4A8Fp8 and kW4A4 are multiplied by a CUDA device in its own units (W4A4 as kW4A16 where the device
// refuses a shape), by the CPU in their arithmetic (kernels/emulated_gemm.h), and there single rows, which
// are tokens of answers and the markers around latents, are always multiplied as in kW4A16. kW4A8Int8 is for
// all rows.
enum class LinearMode { kW4A16, kW4A8Fp8, kW4A8Int8, kW4A4 };

// "w4a16", "w4a8_fp8", "w4a8_int8" or "w4a4". "w4a8" is the 8-bit kind that the device multiplies: w4a8_fp8
// if `on_cuda`, else w4a8_int8. InvalidArgument lists them, also for w4a8_int8 on a CUDA device.
absl::StatusOr<LinearMode> ParseLinearMode(absl::string_view name, bool on_cuda);
absl::string_view LinearModeName(LinearMode mode);

// What the output head is kept as, on the CPU: every token of an answer reads all of it.
//   kBf16  as it is in the checkpoint
//   kInt8  bytes with a factor per token id, and rows that are multiplied with it likewise
//   (kernels/byte_gemm.h)
enum class HeadForm { kBf16, kInt8 };

// "bf16" or "e4m3", which gives true. InvalidArgument lists them.
absl::StatusOr<bool> ParseBlockScales(absl::string_view name);

// "bf16" or "int8". InvalidArgument lists them.
absl::StatusOr<HeadForm> ParseHeadForm(absl::string_view name);
absl::string_view HeadFormName(HeadForm form);

struct LinearPolicyOptions {
  LinearMode mode = LinearMode::kW4A16;
  // Linears that stay in kW4A16: patterns (common/glob.h) over their names in the checkpoint without
  // ".qweight", such as "*.mlp*.down_proj" or "*.layers.0.*". At most 64 of at most 256 bytes.
  std::vector<std::string> bf16_linears;
  // Factors of NVFP4 activations (common/activation_factors.h): a file; empty: activation_factors.json beside
  // the trunk's file, if there is one; "none": 1 for every Linear, as without a file.
  std::string activation_factors;
  HeadForm head = HeadForm::kBf16;
  // Keep block scales as E4M3 under a factor per product, which takes a tenth off the weights. kW4A8Int8
  // only.
  bool e4m3_scales = false;
};

struct LinearChoice {
  LinearMode mode = LinearMode::kW4A16;
  float activation_factor = 1.0f;  // kW4A4
  float weight_factor = 0.0f;      // kW4A4: of the block scales; 0: from the largest
  bool e4m3_scales = false;        // kW4A8Int8
};

class LinearPolicy {
 public:
  // Every Linear in kW4A16.
  LinearPolicy() = default;
  // InvalidArgument for a pattern that matches no Linear (naming it) or exceeds a limit, and for a bad file
  // of factors, and for e4m3_scales in another mode than kW4A8Int8; NotFound for a file that was named and is
  // not there. Factors are read in kW4A4 only.
  static absl::StatusOr<LinearPolicy> Create(const Checkpoint& checkpoint,
                                             const LinearPolicyOptions& options);

  // Every Linear in `mode`, for weights that are in no checkpoint. kW4A16 or kW4A8Int8.
  static LinearPolicy Uniform(LinearMode mode, HeadForm head, bool e4m3_scales);

  // Of one product. Linears with the same input are multiplied together (q, k and v; gate and up): if one of
  // them stays in kW4A16, so do the others, and the largest of their factors counts.
  LinearChoice ChoiceOf(absl::Span<const std::string> bases) const;
  // "w4a16"; what else changes results is behind it, exceptions and factors as a digest: "w4a4 1f0c... head
  // int8". Equal policies say the same.
  std::string Numerics() const;
  bool StaysBf16(absl::Span<const std::string> bases) const;  // by a pattern
  float ActivationFactor(absl::Span<const std::string> bases) const;
  // The largest that the checkpoint's meta file gives; 0 if one of the Linears has none.
  float WeightFactor(absl::Span<const std::string> bases) const;
  HeadForm head() const { return head_; }

 private:
  LinearMode mode_ = LinearMode::kW4A16;
  HeadForm head_ = HeadForm::kBf16;
  bool e4m3_scales_ = false;
  absl::flat_hash_set<std::string> bf16_;
  ActivationFactors factors_;  // empty: 1 for all
  absl::flat_hash_map<std::string, float> weight_factors_;
};

}  // namespace lancet

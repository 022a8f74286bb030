#include "worker/model/vision/vision_tensors.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/half.h"
#include "common/status_macros.h"

namespace lancet {

absl::StatusOr<TensorView> FindVisionTensor(const StateDict& tower, const std::string& name,
                                            int64_t elements) {
  LANCET_ASSIGN_OR_RETURN(const TensorView view, tower.Get(name));
  const bool known = view.dtype == DType::kF32 || view.dtype == DType::kBf16 || view.dtype == DType::kF16;
  if (known && view.num_elements() == elements) return view;
  return absl::InvalidArgumentError(absl::StrCat(tower.path(), ": tensor '", name, "' is ",
                                                 DTypeName(view.dtype), " ", ShapeString(view.shape),
                                                 "; expected ", elements, " F32, BF16 or F16 values"));
}

void AppendBf16(const TensorView& tensor, int64_t begin, int64_t end, std::vector<bf16>& out) {
  if (tensor.dtype == DType::kBf16) {
    out.insert(out.end(), tensor.as<bf16>() + begin, tensor.as<bf16>() + end);
    return;
  }
  for (int64_t i = begin; i < end; ++i) {
    out.push_back(
        ToBf16(tensor.dtype == DType::kF32 ? tensor.as<float>()[i] : HalfToFloat(tensor.as<uint16_t>()[i])));
  }
}

absl::StatusOr<std::vector<bf16>> ReadVisionTensor(const StateDict& tower, const std::string& name,
                                                   int64_t elements) {
  LANCET_ASSIGN_OR_RETURN(const TensorView view, FindVisionTensor(tower, name, elements));
  std::vector<bf16> values;
  values.reserve(elements);
  AppendBf16(view, 0, elements, values);
  tower.Release(name);
  return values;
}

}  // namespace lancet

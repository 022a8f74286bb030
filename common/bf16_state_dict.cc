#include "common/bf16_state_dict.h"

#include <algorithm>

#include "common/half.h"
#include "common/status_macros.h"

namespace lancet {

absl::StatusOr<TensorView> Bf16StateDict::Get(absl::string_view name) const {
  LANCET_ASSIGN_OR_RETURN(TensorView view, source_->Get(name));
  if (view.dtype != DType::kF32 && view.dtype != DType::kF16) return view;
  const std::lock_guard<std::mutex> lock(mu_);
  std::unique_ptr<bf16[]>& rounded = rounded_[name];
  const int64_t count = view.num_elements();
  if (rounded == nullptr) {
    rounded = std::make_unique<bf16[]>(static_cast<size_t>(count));
    if (view.dtype == DType::kF32) {
      std::transform(view.as<float>(), view.as<float>() + count, rounded.get(), ToBf16);
    } else {
      std::transform(view.as<uint16_t>(), view.as<uint16_t>() + count, rounded.get(),
                     [](uint16_t half) { return ToBf16(HalfToFloat(half)); });
    }
    source_->Release(name);
  }
  view.dtype = DType::kBf16;
  view.data = reinterpret_cast<const std::byte*>(rounded.get());
  return view;
}

}  // namespace lancet

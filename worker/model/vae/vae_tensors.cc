#include "worker/model/vae/vae_tensors.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/bf16.h"
#include "common/half.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Wider layers than any autoencoder has: beyond this a header is nonsense.
constexpr int64_t kMaxChannels = 16384;

// Elements [begin, begin + count) of a tensor of a floating-point type, as f32.
void CopyElements(const TensorView& t, int64_t begin, int64_t count, float* out) {
  switch (t.dtype) {
    case DType::kF32:
      std::copy_n(t.as<float>() + begin, count, out);
      return;
    case DType::kBf16:
      std::transform(t.as<bf16>() + begin, t.as<bf16>() + begin + count, out, ToFloat);
      return;
    case DType::kF16:
      std::transform(t.as<uint16_t>() + begin, t.as<uint16_t>() + begin + count, out, HalfToFloat);
      return;
    default:
      std::transform(t.as<double>() + begin, t.as<double>() + begin + count, out,
                     [](double x) { return static_cast<float>(x); });
  }
}

absl::Status Odd(const StateDict& dict, const std::string& name, const TensorView& t,
                 const std::string& expected) {
  return absl::InvalidArgumentError(absl::StrCat(dict.path(), ": tensor \"", name, "\" is ",
                                                 DTypeName(t.dtype), " ", ShapeString(t.shape), "; expected ",
                                                 expected));
}

absl::StatusOr<TensorView> GetFloat(const StateDict& dict, const std::string& name) {
  LANCET_ASSIGN_OR_RETURN(const TensorView t, dict.Get(name));
  if (t.dtype != DType::kF32 && t.dtype != DType::kBf16 && t.dtype != DType::kF16 && t.dtype != DType::kF64) {
    return Odd(dict, name, t, "a floating-point type");
  }
  return t;
}

}  // namespace

absl::StatusOr<VaeConvTensors> ReadVaeConv(const StateDict& dict, const std::string& prefix, int64_t kernel,
                                           int64_t in, int64_t out) {
  const std::string name = prefix + ".weight";
  LANCET_ASSIGN_OR_RETURN(const TensorView w, GetFloat(dict, name));
  const auto wrong = [&] {
    const auto extent = [](int64_t n) { return n == 0 ? std::string("any") : absl::StrCat(n); };
    return Odd(dict, name, w,
               absl::StrCat("[", extent(out), ", ", extent(in), ", ", kernel, ", ", kernel,
                            "], or with a temporal extent of 1 or 3 before the last two"));
  };
  const size_t rank = w.shape.size();
  if (rank != 4 && rank != 5) return wrong();
  const int64_t taps = rank == 5 ? w.shape[2] : 1;
  const int64_t area = kernel * kernel;
  if ((taps != 1 && taps != 3) || w.shape[rank - 2] != kernel || w.shape[rank - 1] != kernel ||
      (in != 0 && w.shape[1] != in) || (out != 0 && w.shape[0] != out) || w.shape[0] < 1 || w.shape[1] < 1 ||
      w.shape[0] > kMaxChannels || w.shape[1] > kMaxChannels) {
    return wrong();
  }
  VaeConvTensors tensors;
  tensors.out_channels = w.shape[0];
  tensors.in_channels = w.shape[1];
  tensors.weight.resize(tensors.out_channels * tensors.in_channels * area);
  for (int64_t oc = 0; oc < tensors.out_channels * tensors.in_channels; ++oc) {
    const int64_t tap = (oc * taps + taps - 1) * area;
    CopyElements(w, tap, area, tensors.weight.data() + oc * area);
  }
  dict.Release(name);  // the file's pages need not stay resident beside what is made of them
  LANCET_ASSIGN_OR_RETURN(tensors.bias, ReadVaeVector(dict, prefix + ".bias", tensors.out_channels));
  return tensors;
}

absl::StatusOr<std::vector<float>> ReadVaeVector(const StateDict& dict, const std::string& name,
                                                 int64_t count) {
  LANCET_ASSIGN_OR_RETURN(const TensorView t, GetFloat(dict, name));
  if (t.num_elements() != count) return Odd(dict, name, t, absl::StrCat(count, " elements"));
  std::vector<float> values(count);
  CopyElements(t, 0, count, values.data());
  return values;
}

}  // namespace lancet

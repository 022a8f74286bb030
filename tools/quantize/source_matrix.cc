#include "tools/quantize/source_matrix.h"

#include <bit>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "common/half.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

template <typename To>
To Converted(bf16 x) {
  if constexpr (std::is_same_v<To, bf16>) {
    return x;
  } else {
    return ToFloat(x);
  }
}

// ToBf16 without its branch, so that loops over it become vector code. Numbers that are not finite stay so.
inline bf16 RoundedBits(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t is_nan = (u & 0x7fffffffu) > 0x7f800000u ? 0xffffffffu : 0u;
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return bf16{static_cast<uint16_t>((rounded & ~is_nan) | (0x7fc0u & is_nan))};
}

template <typename To>
void Read(const TensorView& tensor, int64_t begin, absl::Span<To> to) {
  switch (tensor.dtype) {
    case DType::kF32: {
      const float* from = tensor.as<float>() + begin;
      for (size_t i = 0; i < to.size(); ++i) to[i] = Converted<To>(RoundedBits(from[i]));
      break;
    }
    case DType::kBf16: {
      const bf16* from = tensor.as<bf16>() + begin;
      for (size_t i = 0; i < to.size(); ++i) to[i] = Converted<To>(from[i]);
      break;
    }
    default: {
      const uint16_t* from = reinterpret_cast<const uint16_t*>(tensor.data) + begin;
      for (size_t i = 0; i < to.size(); ++i) to[i] = Converted<To>(RoundedBits(HalfToFloat(from[i])));
      break;
    }
  }
}

absl::StatusOr<TensorView> GetSource(const StateDict& source, const std::string& name, const Shape& shape) {
  LANCET_ASSIGN_OR_RETURN(const TensorView view, source.Get(name));
  if (!IsSourceType(view.dtype) || view.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(source.path(), ": tensor ", Quote(name), " is ",
                                                   DTypeName(view.dtype), " ", ShapeString(view.shape),
                                                   "; expected F32, BF16 or F16 ", ShapeString(shape)));
  }
  return view;
}

}  // namespace

bool IsSourceType(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBf16 || dtype == DType::kF16;
}

void ReadRounded(const TensorView& tensor, int64_t begin, absl::Span<float> to) { Read(tensor, begin, to); }
void ReadRounded(const TensorView& tensor, int64_t begin, absl::Span<bf16> to) { Read(tensor, begin, to); }

absl::StatusOr<SourceMatrix> SourceMatrix::Open(const StateDict& source, const std::string& name,
                                                int64_t rows, int64_t cols) {
  SourceMatrix matrix;
  LANCET_ASSIGN_OR_RETURN(matrix.view_, GetSource(source, name, {rows, cols}));
  return matrix;
}

absl::StatusOr<std::vector<float>> ReadSourceVector(const StateDict& source, const std::string& name,
                                                    int64_t size) {
  LANCET_ASSIGN_OR_RETURN(const TensorView view, GetSource(source, name, {size}));
  std::vector<float> values(size);
  ReadRounded(view, 0, absl::MakeSpan(values));
  return values;
}

// Without an exit, so that the loops become vector code.
bool AllFinite(absl::Span<const float> values) {
  uint32_t bad = 0;
  for (const float x : values) bad |= (std::bit_cast<uint32_t>(x) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  return bad == 0;
}

bool AllFinite(absl::Span<const bf16> values) {
  uint16_t bad = 0;
  for (const bf16 x : values) bad |= (x.bits & 0x7f80u) == 0x7f80u ? 1u : 0u;
  return bad == 0;
}

absl::Status NotFinite(const StateDict& source, absl::string_view name) {
  return absl::InvalidArgumentError(
      absl::StrCat(source.path(), ": tensor ", Quote(name), " holds a value that is not finite in bf16"));
}

}  // namespace lancet

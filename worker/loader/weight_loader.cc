#include "worker/loader/weight_loader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/model_config.h"
#include "common/status_macros.h"
#include "common/trunk_layout.h"
#include "kernels/number_formats.h"

namespace lancet {

namespace {

void AppendRow(const LinearView& part, int64_t row, std::vector<bf16>& to) {
  if (part.is_bf16) {
    to.insert(to.end(), part.dense.row(row), part.dense.row(row) + part.dense.cols);
    return;
  }
  const Nvfp4MatrixView& w = part.nvfp4;
  for (int64_t c = 0; c < w.cols; ++c) {
    const uint8_t byte = w.codes[row * w.codes_stride + c / 2];
    const float code = FromE2m1(c % 2 == 0 ? byte & 15 : byte >> 4);
    to.push_back(ToBf16(code * ToFloat(w.scales[row * w.scales_stride + c / kNvfp4Block])));
  }
}

}  // namespace

absl::StatusOr<LinearView> LoadLinearSlice(const StateDict& dict, absl::string_view base,
                                           absl::string_view linear, int64_t rows, int64_t cols,
                                           const ShardPlan& plan) {
  LANCET_ASSIGN_OR_RETURN(const LinearSlice slice, SliceLinear(plan, linear, rows, cols));
  LinearView view;
  if (IsUnquantised(dict, base)) {
    LANCET_ASSIGN_OR_RETURN(const ConstMatrixView<bf16> weight,
                            LoadMatrix(dict, absl::StrCat(base, ".weight"), rows, cols));
    view.is_bf16 = true;
    view.dense = weight.Rows(slice.rows.begin, slice.rows.size()).Cols(slice.cols.begin, slice.cols.size());
    return view;
  }
  LANCET_ASSIGN_OR_RETURN(const TensorView codes,
                          GetChecked(dict, absl::StrCat(base, ".qweight"), DType::kU8, {rows, cols / 2}));
  LANCET_ASSIGN_OR_RETURN(const TensorView scales, GetChecked(dict, absl::StrCat(base, ".scales_bf16"),
                                                              DType::kBf16, {rows, cols / kNvfp4Block}));
  Nvfp4MatrixView& w = view.nvfp4;
  w.rows = slice.rows.size();
  w.cols = slice.cols.size();
  w.codes_stride = cols / 2;
  w.scales_stride = cols / kNvfp4Block;
  w.codes = codes.as<uint8_t>() + slice.rows.begin * w.codes_stride + slice.cols.begin / 2;
  w.scales = scales.as<bf16>() + slice.rows.begin * w.scales_stride + slice.cols.begin / kNvfp4Block;
  return view;
}

void ReleaseLinear(const StateDict& dict, absl::string_view base) {
  for (const char* kind : {".qweight", ".scales_bf16", ".weight"}) dict.Release(absl::StrCat(base, kind));
}

bool AnyBf16(absl::Span<const LinearView> parts) {
  return std::any_of(parts.begin(), parts.end(), [](const LinearView& part) { return part.is_bf16; });
}

std::vector<Nvfp4MatrixView> Nvfp4Parts(absl::Span<const LinearView> parts) {
  std::vector<Nvfp4MatrixView> views;
  if (AnyBf16(parts)) return views;
  for (const LinearView& part : parts) views.push_back(part.nvfp4);
  return views;
}

std::vector<bf16> StackBf16(absl::Span<const LinearView> parts, int64_t turn) {
  std::vector<bf16> stacked;
  if (parts.empty()) return stacked;
  int64_t rows = 0;
  int64_t longest = 0;
  for (const LinearView& part : parts) {
    rows += part.rows();
    longest = std::max(longest, part.rows());
  }
  stacked.reserve(static_cast<size_t>(rows * parts[0].cols()));
  const int64_t step = turn > 0 ? turn : std::max<int64_t>(longest, 1);
  for (int64_t first = 0; first < longest; first += step) {
    for (const LinearView& part : parts) {
      for (int64_t r = first; r < std::min(first + step, part.rows()); ++r) AppendRow(part, r, stacked);
    }
  }
  return stacked;
}

absl::StatusOr<std::vector<bf16>> LoadVector(const StateDict& dict, const std::string& name, int64_t size,
                                             Range range) {
  LANCET_ASSIGN_OR_RETURN(const TensorView view, GetChecked(dict, name, DType::kBf16, {size}));
  return std::vector<bf16>(view.as<bf16>() + range.begin, view.as<bf16>() + range.end);
}

absl::StatusOr<std::vector<bf16>> LoadVector(const StateDict& dict, const std::string& name, int64_t size) {
  return LoadVector(dict, name, size, Range{0, size});
}

absl::StatusOr<ConstMatrixView<bf16>> LoadMatrix(const StateDict& dict, const std::string& name, int64_t rows,
                                                 int64_t cols) {
  LANCET_ASSIGN_OR_RETURN(const TensorView view, GetChecked(dict, name, DType::kBf16, {rows, cols}));
  return ConstMatrixView<bf16>(view.as<bf16>(), rows, cols);
}

}  // namespace lancet

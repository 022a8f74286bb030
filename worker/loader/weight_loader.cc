#include "worker/loader/weight_loader.h"

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {

absl::StatusOr<Nvfp4MatrixView> LoadLinearSlice(const StateDict& dict, absl::string_view base,
                                                absl::string_view linear, int64_t rows, int64_t cols,
                                                const ShardPlan& plan) {
  LANCET_ASSIGN_OR_RETURN(const LinearSlice slice, SliceLinear(plan, linear, rows, cols));
  LANCET_ASSIGN_OR_RETURN(const TensorView codes,
                          GetChecked(dict, absl::StrCat(base, ".qweight"), DType::kU8, {rows, cols / 2}));
  LANCET_ASSIGN_OR_RETURN(const TensorView scales, GetChecked(dict, absl::StrCat(base, ".scales_bf16"),
                                                              DType::kBf16, {rows, cols / kNvfp4Block}));
  Nvfp4MatrixView view;
  view.rows = slice.rows.size();
  view.cols = slice.cols.size();
  view.codes_stride = cols / 2;
  view.scales_stride = cols / kNvfp4Block;
  view.codes = codes.as<uint8_t>() + slice.rows.begin * view.codes_stride + slice.cols.begin / 2;
  view.scales = scales.as<bf16>() + slice.rows.begin * view.scales_stride + slice.cols.begin / kNvfp4Block;
  return view;
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

#include "worker/model/vae/row_split.h"

#include <algorithm>

namespace lancet {
namespace {

constexpr int64_t kConvsOfBlock = 2;
constexpr int64_t kHeadConvs = 1;

Range Widen(Range range, int64_t margin, int64_t rows) {
  return {std::max<int64_t>(0, range.begin - margin), std::min(rows, range.end + margin)};
}

}  // namespace

VaeRowSplit SplitVaeRows(int64_t height, absl::Span<const VaeStageShape> stages, int rank, int world_size) {
  VaeRowSplit split;
  split.own = SplitEvenly(height, rank, world_size);
  for (const VaeStageShape& stage : stages) split.scale *= stage.resampled ? 2 : 1;
  if (split.own.size() == 0) {
    for (const VaeStageShape& stage : stages) {
      if (stage.resampled) split.kept.push_back({});
    }
    return split;
  }
  // From the picture back to the attention: `needed` rows of a map must be right.
  int64_t rows = height * split.scale;
  Range needed = Widen({split.own.begin * split.scale, split.own.end * split.scale}, kHeadConvs, rows);
  for (size_t i = stages.size(); i-- > 0;) {
    if (stages[i].resampled) {
      // Row r of the enlarged map is row r / 2; the convolution behind looks at one row on either side.
      const Range seen = Widen(needed, 1, rows);
      rows /= 2;
      needed = {seen.begin / 2, (seen.end + 1) / 2};
      split.kept.insert(split.kept.begin(), needed);
    }
    needed = Widen(needed, kConvsOfBlock * stages[i].blocks, rows);
  }
  split.middle = Widen(needed, kConvsOfBlock, rows);
  split.head = split.computed(split.kept.size());
  return split;
}

}  // namespace lancet

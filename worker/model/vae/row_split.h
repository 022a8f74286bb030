// Which rows of the decoder's maps each rank of a group computes: its own share of the picture, and around it
// as many rows as the convolutions in between look at. Those are computed by two ranks instead of being
// exchanged: early maps, where a latent row is one row, have many of them but cost little, and late ones have
// few.
//
// A rank's maps end where its rows end, so a convolution sees zeros there; each spoils one row more, and the
// margin covers them all. At the borders of the picture zeros are right. Rows before the middle block's
// attention, which sees the whole picture, are computed by every rank.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/partition.h"

namespace lancet {

// A stage of the decoder: residual blocks with two convolutions each, then, if resampled, an enlargement to
// twice the rows with a convolution behind it.
struct VaeStageShape {
  int64_t blocks = 0;
  bool resampled = false;
};

struct VaeRowSplit {
  Range own;                // latent rows whose pixels the rank delivers; may be empty
  Range middle;             // latent rows from the middle block's attention on, and through the first stage
  std::vector<Range> kept;  // of each resampled stage: rows of its result that are enlarged, in its own rows
  Range head;               // rows that the last stage computes, in its own rows
  int64_t scale = 1;        // rows of the last stage for one latent row

  // Rows that stage `index` computes, in its own rows.
  Range computed(size_t index) const {
    return index == 0 ? middle : Range{2 * kept[index - 1].begin, 2 * kept[index - 1].end};
  }
};

// `height`: latent rows of the picture. The middle block has one residual block behind its attention, the
// head one convolution. A rank without rows of its own computes nothing.
VaeRowSplit SplitVaeRows(int64_t height, absl::Span<const VaeStageShape> stages, int rank, int world_size);

}  // namespace lancet

// Checks an autoencoder file before anything is computed from it. Names are the release's; widths come from
// the tensors themselves and must fit together.
#pragma once

#include "absl/status/statusor.h"
#include "common/state_dict.h"

namespace lancet {

struct VaeLayout {
  // Kernels hold only the temporal tap that single frames use ([out, in, 1, kh, kw]) and there is no
  // time_conv: such a file serves pictures, not videos.
  bool image_only = false;
  // A file without any encoder tensor can draw, but not read pictures.
  bool has_encoder = false;
};

// Every decoder tensor and conv2, and all of the encoder and conv1 unless none of it is there; each F32, BF16
// or F16. InvalidArgument names the first tensor that is missing or odd.
absl::StatusOr<VaeLayout> CheckVae(const StateDict& vae);

}  // namespace lancet

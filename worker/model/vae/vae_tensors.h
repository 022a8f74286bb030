// Tensors of the autoencoder as the layers of any backend want them: f32, and of a 3-D convolution the one
// temporal tap that a single frame reads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/state_dict.h"

namespace lancet {

struct VaeConvTensors {
  int64_t out_channels = 0;
  int64_t in_channels = 0;
  std::vector<float> weight;  // [out, in, kernel, kernel]
  std::vector<float> bias;    // [out]
};

// `<prefix>.weight` and `<prefix>.bias`. `in` is the expected number of input channels, 0 for any; likewise
// `out`. A 3-D kernel gives its last temporal tap. NotFound or InvalidArgument names tensor, file, shape and
// what was expected.
absl::StatusOr<VaeConvTensors> ReadVaeConv(const StateDict& dict, const std::string& prefix, int64_t kernel,
                                           int64_t in, int64_t out);

// All of a tensor with `count` elements, whatever its shape. Errors as above.
absl::StatusOr<std::vector<float>> ReadVaeVector(const StateDict& dict, const std::string& name,
                                                 int64_t count);

}  // namespace lancet

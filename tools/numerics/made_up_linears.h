// Weights and activations drawn from distributions, the weights quantised as a checkpoint's are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/bf16.h"
#include "kernels/nvfp4.h"

namespace lancet {

struct LinearSample;

struct MadeUpLinear {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<uint8_t> codes;
  std::vector<bf16> scales;
  std::vector<uint8_t> scales_fp8;
  std::vector<bf16> x;

  // Points into this.
  LinearSample sample() const;
};

// Normal weights of several deviations and heavy-tailed ones (Student's t, 4 degrees of freedom); normal
// activations of several deviations, heavy-tailed ones (3 degrees), and normal ones with a few channels 30
// times as large. The same on every machine.
std::vector<MadeUpLinear> MadeUpLinears();

}  // namespace lancet

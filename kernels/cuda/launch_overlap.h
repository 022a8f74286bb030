// Whether a launch may begin before the one before it in the stream has ended (programmatic launch, sm_90 and
// later; elsewhere launches are apart).
#pragma once

namespace lancet::cuda {

enum class LaunchOverlap {
  kNone,  // after all work before it
  kOne,   // beside the launch before, once that has its inputs: what it does not write may be read meanwhile
  kMany,  // beside several: the launch after may begin at once
};

}  // namespace lancet::cuda

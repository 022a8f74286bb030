// Reads what an opened file of tensors offers.
#pragma once

#include <string>

#include "common/state_dict.h"
#include "tests/fuzz/fuzzing.h"

namespace lancet {

// Touches every byte of every tensor, so that the address sanitizer sees any that is not there.
inline void ReadTensors(const StateDict& dict) {
  volatile uint8_t sink = 0;
  for (const std::string& name : dict.names()) {
    const auto view = dict.Get(name);
    Require(view.ok(), "a tensor that is listed can be read");
    for (int64_t i = 0; i < view->num_bytes(); ++i) sink = sink + static_cast<uint8_t>(view->data[i]);
  }
}

}  // namespace lancet

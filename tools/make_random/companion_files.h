// The small files of a random checkpoint: configurations, the trunk's meta file and a tokenizer.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tools/make_random/random_dims.h"

namespace lancet {

std::string RandomLlmConfig(const RandomDims& dims);
std::string RandomVisionConfig(const RandomDims& dims);
std::string RandomTrunkMeta(const RandomDims& dims);

// A byte-level BPE tokenizer of dims.base_tokens tokens: the 256 bytes, then pairs of bytes, then triples, as
// many as fit, each with its merge; and the 22 added tokens of the release.
struct RandomTokenizer {
  std::string vocab;   // vocab.json
  std::string merges;  // merges.txt
  std::string config;  // tokenizer_config.json
};
// dims.base_tokens is between 256 and 256 + 2^16 + 2^24.
RandomTokenizer MakeRandomTokenizer(const RandomDims& dims);

}  // namespace lancet

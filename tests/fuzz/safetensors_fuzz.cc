// A safetensors file; text that begins with '{' is taken as its header alone, and as nvfp4_meta.json,
// llm_config.json and activation_factors.json.

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "common/activation_factors.h"
#include "common/model_config.h"
#include "common/safetensors.h"
#include "common/safetensors_header.h"
#include "common/trunk_check.h"
#include "tests/fuzz/fuzzing.h"
#include "tests/fuzz/read_tensors.h"
#include "tests/testing/in_memory_file.h"

namespace lancet {
namespace {

// What the headers among the seeds describe.
constexpr uint64_t kDataBytes = 64;

// The meta file among the seeds describes a trunk of these sizes.
ModelConfig SmallConfig() {
  ModelConfig config;
  config.hidden_size = 32;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 16;
  config.intermediate_size = 48;
  config.vocab_size = 8;
  return config;
}

void FuzzText(absl::string_view text) {
  if (const auto entries = ParseSafetensorsHeader(text, kDataBytes, "memory"); entries.ok()) {
    uint64_t end = 0;
    for (const SafetensorsEntry& entry : *entries) {
      Require(entry.begin == end && entry.end >= entry.begin, "tensors follow one another");
      end = entry.end;
    }
    Require(end == kDataBytes, "tensors cover the data");
  }
  static const ModelConfig config = SmallConfig();
  ParseTrunkMeta(std::string(text), "memory", config, nullptr).IgnoreError();
  if (const auto parsed = ParseModelConfig(std::string(text), "memory"); parsed.ok()) {
    Require(parsed->hidden_size > 0 && parsed->intermediate_size % kNvfp4Block == 0, "the config is sound");
  }
  ParseModelCard(std::string(text), "memory").IgnoreError();
  static const std::vector<std::string> linears = {"a.q_proj", "a.o_proj"};
  if (const auto factors = ParseActivationFactors(text, "memory", "00ff", linears); factors.ok()) {
    Require(factors->size() == linears.size(), "every Linear has a factor");
    for (const auto& [name, factor] : *factors) {
      Require(factor > 0 && std::isfinite(factor), "factors are positive numbers");
    }
  }
}

}  // namespace
}  // namespace lancet

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text = lancet::AsText(data, size);
  if (!text.empty() && text.front() == '{') {
    lancet::FuzzText(text);
    return 0;
  }
  const auto file = lancet::SafetensorsFile::Create(std::make_unique<lancet::InMemoryFile>(text));
  if (file.ok()) lancet::ReadTensors(**file);
  return 0;
}

// Trunk layers of the release's dimensions with random weights, made in memory: for measurements on the CPU
// where there is no checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/dtype.h"
#include "common/model_config.h"
#include "common/state_dict.h"
#include "common/tensor_view.h"

namespace lancet {

// Tensors made on demand and kept: random codes, scales and norms of plausible size.
class RandomStateDict final : public StateDict {
 public:
  void AddBf16(const std::string& name, Shape shape, float low, float high);
  void AddCodes(const std::string& name, Shape shape);
  void AddLinear(const std::string& base, int64_t rows, int64_t cols, bool bias);

  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override { return tensors_.contains(std::string(name)); }
  absl::StatusOr<TensorView> Get(absl::string_view name) const override;
  const std::string& path() const override { return path_; }
  void Release(absl::string_view /*name*/) const override {}  // nothing is mapped

 private:
  struct Entry {
    std::vector<std::byte> data;
    TensorView view;
  };
  std::vector<std::byte>& Allocate(const std::string& name, DType dtype, Shape shape);

  std::mt19937 random_{1};
  std::map<std::string, Entry> tensors_;
  std::vector<std::string> names_;
  std::string path_ = "memory";
};

// The release's but for the number of layers and the embedding, which is not part of a layer.
ModelConfig ReleaseLayerConfig(int64_t num_layers);
// Everything that the trunk of such a configuration loads, but the head.
RandomStateDict MakeRelease(const ModelConfig& config);

}  // namespace lancet

// A model of the release's sizes with random weights, made in memory: for measurements where there is no
// checkpoint.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "common/state_dict.h"
#include "common/vision_config.h"

namespace lancet {

ModelConfig ReleaseConfig();
VisionConfig ReleaseVisionConfig();

// Tensors of plausible size. All layers of the trunk share one layer's tensors, so that a model costs little
// to make; who loads it copies them apart.
class RandomModel final : public StateDict {
 public:
  // Both experts of a layer, embeddings, head and adapters.
  static std::unique_ptr<RandomModel> Trunk(const ModelConfig& config);
  // The autoencoder's decoder, reduced to what a single frame needs.
  static std::unique_ptr<RandomModel> VaeDecoder();
  // Likewise the encoder.
  static std::unique_ptr<RandomModel> VaeEncoder();
  // All blocks share one block's tensors.
  static std::unique_ptr<RandomModel> VisionTower(const VisionConfig& config);

  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override;
  absl::StatusOr<TensorView> Get(absl::string_view name) const override;
  const std::string& path() const override { return path_; }

 private:
  void Add(const std::string& name, DType dtype, Shape shape, float low, float high);
  void AddLinear(const std::string& base, int64_t rows, int64_t cols, bool bias);
  void AddConv(const std::string& prefix, int64_t out, int64_t in, int64_t kernel);
  void AddBlock(const std::string& prefix, int64_t in, int64_t out);
  uint32_t Bits();

  struct Entry {
    std::vector<std::byte> data;
    TensorView view;
  };
  std::map<std::string, Entry> tensors_;
  std::vector<std::string> names_;
  std::string path_ = "random weights";
  uint64_t state_ = 88172645463325252u;
};

}  // namespace lancet

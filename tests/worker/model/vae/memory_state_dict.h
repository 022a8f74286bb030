// State dicts made in memory, and how far pixels are from a golden.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/bf16.h"
#include "common/state_dict.h"

namespace lancet {

class MemoryStateDict final : public StateDict {
 public:
  template <typename T>
  void Add(const std::string& name, const Shape& shape, const std::vector<T>& values) {
    Tensor& t = tensors_[name];
    t.dtype = DTypeOf<T>::value;
    t.shape = shape;
    t.data.resize(values.size() * sizeof(T));
    std::memcpy(t.data.data(), values.data(), t.data.size());
    if (std::find(names_.begin(), names_.end(), name) == names_.end()) names_.push_back(name);
    std::sort(names_.begin(), names_.end());
  }
  void Remove(const std::string& name) {
    tensors_.erase(name);
    names_.erase(std::remove(names_.begin(), names_.end(), name), names_.end());
  }

  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override { return tensors_.count(std::string(name)) != 0; }
  absl::StatusOr<TensorView> Get(absl::string_view name) const override {
    const auto found = tensors_.find(std::string(name));
    if (found == tensors_.end()) return absl::NotFoundError(absl::StrCat("memory: no tensor \"", name, "\""));
    return TensorView{found->second.dtype, found->second.shape, found->second.data.data()};
  }
  const std::string& path() const override { return path_; }
  void Release(absl::string_view) const override {}

 private:
  struct Tensor {
    DType dtype = DType::kF32;
    Shape shape;
    std::vector<std::byte> data;
  };
  std::string path_ = "memory";
  std::map<std::string, Tensor> tensors_;
  std::vector<std::string> names_;
};

// ||x - reference|| / ||reference||.
inline double RelativeError(const std::vector<float>& x, const float* reference) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    difference += std::pow(double{x[i]} - reference[i], 2);
    norm += std::pow(double{reference[i]}, 2);
  }
  return std::sqrt(difference / norm);
}

}  // namespace lancet

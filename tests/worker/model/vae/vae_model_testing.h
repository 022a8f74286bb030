// What tests of both halves of the autoencoder need: contexts, files, yardsticks, and the networks of the
// specification's conformance vectors.
#pragma once

#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/safetensors.h"
#include "kernels/kernel_context.h"
#include "tests/worker/model/vae/memory_state_dict.h"

namespace lancet {

inline std::unique_ptr<KernelContext> Context(CpuIsa isa = CpuIsa::kAvx512Bf16) {
  auto ctx = KernelContext::CreateCpu({.threads = 2, .max_isa = isa, .use_bf16_dots = true});
  (*ctx)->BindCallingThread();
  return *std::move(ctx);
}

inline std::unique_ptr<SafetensorsFile> OpenFile(const std::string& path) {
  auto file = SafetensorsFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}

// A tensor of bf16 or f32 as floats.
inline std::vector<float> Floats(const StateDict& dict, const std::string& name) {
  const auto view = dict.Get(name);
  EXPECT_TRUE(view.ok()) << view.status();
  std::vector<float> values(view->num_elements());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = view->dtype == DType::kBf16 ? ToFloat(view->as<bf16>()[i]) : view->as<float>()[i];
  }
  return values;
}

inline double Yardstick(const std::string& folder, const char* file, const char* quantity,
                        const char* variant) {
  std::ifstream stream(folder + "golden/errors.json");
  return nlohmann::json::parse(stream)[file][quantity][variant][0].get<double>();
}

// The network of the specification's conformance vectors: parameters are hashes of their names.
inline double HashValue(uint32_t n, uint32_t i) {
  uint32_t h = n * 0x9E3779B1u + i * 0x85EBCA6Bu + 1u;
  h ^= h >> 16;
  h *= 0x7FEB352Du;
  h ^= h >> 15;
  h *= 0x846CA68Bu;
  h ^= h >> 16;
  return h / 2147483648.0 - 1.0;
}

inline void AddHashed(MemoryStateDict& dict, const std::string& name, const Shape& shape) {
  const auto n = static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(name.data()), name.size()));
  std::vector<float> values(NumElements(shape));
  const double scale = std::sqrt(3.0 / (static_cast<double>(values.size()) / static_cast<double>(shape[0])));
  const bool gamma = name.ends_with(".gamma");
  const bool bias = name.ends_with(".bias");
  for (size_t i = 0; i < values.size(); ++i) {
    const double v = HashValue(n, static_cast<uint32_t>(i));
    values[i] = static_cast<float>(gamma ? 1 + 0.25 * v : bias ? 0.1 * v : v * scale);
  }
  dict.Add(name, shape, values);
}

inline void AddConv(MemoryStateDict& dict, const std::string& prefix, const Shape& shape) {
  AddHashed(dict, prefix + ".weight", shape);
  AddHashed(dict, prefix + ".bias", {shape[0]});
}

inline void AddResBlock(MemoryStateDict& dict, const std::string& prefix, int64_t in, int64_t out) {
  AddHashed(dict, prefix + ".residual.0.gamma", {in, 1, 1, 1});
  AddConv(dict, prefix + ".residual.2", {out, in, 3, 3, 3});
  AddHashed(dict, prefix + ".residual.3.gamma", {out, 1, 1, 1});
  AddConv(dict, prefix + ".residual.6", {out, out, 3, 3, 3});
  if (in != out) AddConv(dict, prefix + ".shortcut", {out, in, 1, 1, 1});
}

// A copy with only the last temporal tap of each 3-D kernel and without time_conv, in f32.
inline MemoryStateDict ImageOnly(const StateDict& full) {
  MemoryStateDict image_only;
  for (const std::string& name : full.names()) {
    if (name.find("time_conv") != std::string::npos) continue;
    const TensorView t = *full.Get(name);
    std::vector<float> values = Floats(full, name);
    Shape shape = t.shape;
    if (shape.size() == 5 && shape[2] == 3) {
      const int64_t area = shape[3] * shape[4];
      std::vector<float> last;
      for (int64_t i = 0; i < shape[0] * shape[1]; ++i) {
        const float* tap = &values[(i * 3 + 2) * area];
        last.insert(last.end(), tap, tap + area);
      }
      values = last;
      shape[2] = 1;
    }
    image_only.Add(name, shape, values);
  }
  return image_only;
}

}  // namespace lancet

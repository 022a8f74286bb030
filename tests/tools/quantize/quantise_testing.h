// A small unquantised checkpoint for tests of the quantiser: the micro fixture, changed and written as they
// like, and what weights a quantised file stands for.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "common/model_config.h"
#include "common/safetensors.h"
#include "common/trunk_check.h"
#include "common/trunk_layout.h"
#include "kernels/number_formats.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"
#include "tools/quantize/quantise_checkpoint.h"
#include "tools/quantize/source_matrix.h"

namespace lancet {

inline std::string MicroPath(absl::string_view name) {
  return absl::StrCat(LANCET_TEST_DATA "/micro/", name);
}

inline ModelConfig MicroConfig() {
  const std::string path = MicroPath("Lance_3B/llm_config.json");
  return ParseModelConfig(ReadTextFile(path, 1 << 20).value(), path).value();
}

inline std::unique_ptr<SafetensorsFile> MicroSource() {
  return SafetensorsFile::Open(MicroPath("Lance_3B/model.safetensors")).value();
}

inline std::unique_ptr<SafetensorsFile> InMemory(const TensorFile& tensors) {
  return SafetensorsFile::Create(std::make_unique<InMemoryFile>(SerializeTensors(tensors))).value();
}

// A path in a fresh folder of the running test.
inline std::string FreshPath(absl::string_view name) {
  static int count = 0;
  const std::string folder = absl::StrCat(
      ::testing::TempDir(), "/", ::testing::UnitTest::GetInstance()->current_test_info()->test_suite_name(),
      ".", ::testing::UnitTest::GetInstance()->current_test_info()->name(), ".", getpid(), ".", count++);
  std::filesystem::create_directories(folder);
  return absl::StrCat(folder, "/", name);
}

// The weight that a Linear of a trunk stands for, factors of its channels included; [out, in].
inline std::vector<double> EffectiveWeight(const StateDict& trunk, const TrunkLinear& linear) {
  std::vector<double> weight(linear.out * linear.in);
  if (IsUnquantised(trunk, linear.base)) {
    const TensorView view = trunk.Get(linear.base + ".weight").value();
    for (size_t i = 0; i < weight.size(); ++i) weight[i] = ToFloat(view.as<bf16>()[i]);
    return weight;
  }
  const TensorView codes = trunk.Get(linear.base + ".qweight").value();
  const TensorView scales = trunk.Get(linear.base + ".scales_bf16").value();
  for (size_t i = 0; i < weight.size(); ++i) {
    const uint8_t byte = codes.as<uint8_t>()[i / 2];
    weight[i] = static_cast<double>(FromE2m1(i % 2 == 0 ? byte & 15 : byte >> 4)) *
                ToFloat(scales.as<bf16>()[i / kNvfp4Block]);
  }
  return weight;
}

}  // namespace lancet

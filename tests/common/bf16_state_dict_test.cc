#include "common/bf16_state_dict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "common/safetensors.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

TEST(Bf16StateDictTest, RoundsWhatIsWider) {
  TensorFile tensors;
  // 1 + 2^-8 lies between two bf16 numbers and goes to the even one, 1 + 3 * 2^-8 up.
  tensors["f32"] = {"F32", {2, 2}, Bytes<float>({1.0f, 1.00390625f, 1.01171875f, -3.0e38f})};
  tensors["f16"] = {"F16", {3}, Bytes<uint16_t>({0x3c00, 0xc248, 0x0001})};  // 1, -3.140625, 2^-24
  tensors["bf16"] = {"BF16", {2}, Bytes<uint16_t>({0x3f80, 0x4000})};
  tensors["bytes"] = {"U8", {2}, Bytes<uint8_t>({1, 2})};
  const auto file =
      SafetensorsFile::Create(std::make_unique<InMemoryFile>(SerializeTensors(tensors))).value();
  const Bf16StateDict dict(file.get());
  EXPECT_EQ(dict.names(), file->names());

  const TensorView f32 = dict.Get("f32").value();
  EXPECT_EQ(f32.dtype, DType::kBf16);
  EXPECT_EQ(f32.shape, (Shape{2, 2}));
  const float expected[] = {1.0f, 1.0f, 1.015625f, RoundToBf16(-3.0e38f)};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(ToFloat(f32.as<bf16>()[i]), expected[i]) << i;
  const TensorView f16 = dict.Get("f16").value();
  EXPECT_EQ(ToFloat(f16.as<bf16>()[0]), 1.0f);
  EXPECT_EQ(ToFloat(f16.as<bf16>()[1]), RoundToBf16(-3.140625f));
  EXPECT_EQ(ToFloat(f16.as<bf16>()[2]), 0x1p-24f);
  // Kept: views stay valid, and are made once.
  dict.Release("f32");
  EXPECT_EQ(dict.Get("f32")->data, f32.data);
  EXPECT_EQ(dict.Get("bf16")->data, file->Get("bf16")->data);
  EXPECT_EQ(dict.Get("bytes")->dtype, DType::kU8);
  EXPECT_THAT(dict.Get("none").status(), Fails(absl::StatusCode::kNotFound, HasSubstr("'none'")));
}

}  // namespace
}  // namespace lancet

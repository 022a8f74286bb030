#include "common/torch_zip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/state_dict.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/torch_archive.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

std::string DataPath(absl::string_view name) { return absl::StrCat(LANCET_TEST_DATA, "/pth/", name); }

double Element(const TensorView& view, int64_t i) {
  switch (view.dtype) {
    case DType::kF32:
      return view.as<float>()[i];
    case DType::kBf16:
      return ToFloat(view.as<bf16>()[i]);
    case DType::kI64:
      return static_cast<double>(view.as<int64_t>()[i]);
    case DType::kF16: {
      const uint16_t bits = view.as<uint16_t>()[i];
      const int exponent = (bits >> 10) & 31;
      const double magnitude =
          exponent == 0 ? std::ldexp(bits & 1023, -24) : std::ldexp(1024 + (bits & 1023), exponent - 25);
      return (bits & 0x8000) != 0 ? -magnitude : magnitude;
    }
    default:
      ADD_FAILURE() << "unexpected dtype " << DTypeName(view.dtype);
      return 0;
  }
}

TEST(TorchZipTest, ReadsStoredAndDeflatedStateDicts) {
  std::ifstream stream(DataPath("flat.json"));
  const nlohmann::json expected = nlohmann::json::parse(stream);
  const std::map<std::string, DType> dtypes = {
      {"float32", DType::kF32}, {"bfloat16", DType::kBf16}, {"float16", DType::kF16}, {"int64", DType::kI64}};
  for (const char* file : {"flat.pth", "deflated.pth"}) {
    SCOPED_TRACE(file);
    const auto dict = OpenStateDict(DataPath(file));
    ASSERT_THAT(dict, IsOk());
    EXPECT_EQ((*dict)->names().size(), expected.size());
    for (const auto& [name, tensor] : expected.items()) {
      SCOPED_TRACE(name);
      const auto view = (*dict)->Get(name);
      ASSERT_THAT(view, IsOk());
      EXPECT_EQ(view->dtype, dtypes.at(tensor["dtype"]));
      const auto shape = tensor["shape"].get<std::vector<int64_t>>();
      EXPECT_EQ(view->shape, Shape(shape.begin(), shape.end()));
      const auto values = tensor["values"].get<std::vector<double>>();
      ASSERT_EQ(view->num_elements(), static_cast<int64_t>(values.size()));
      for (size_t i = 0; i < values.size(); ++i)
        EXPECT_EQ(Element(*view, static_cast<int64_t>(i)), values[i]) << i;
      (*dict)->Release(name);
    }
  }
}

TEST(TorchZipTest, RefusesHostileAndDamagedFiles) {
  const struct {
    const char* file;
    const char* message;
  } kCases[] = {
      {"evil_global.pth", "asks for 'builtins.eval'"},
      {"evil_reduce.pth", "asks for 'posix.system'"},
      {"nested.pth", "holds a dict under 'state_dict'"},
      {"legacy.pth", "before version 1.6"},
      {"missing_storage.pth", "lacks storage '0' of tensor 'conv.weight'"},
      {"short_storage.pth", "storage '0' of tensor 'conv.weight' has 40 bytes"},
      {"truncated.pth", "truncated"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(
        OpenStateDict(DataPath(c.file)),
        Fails(absl::StatusCode::kInvalidArgument, ::testing::AllOf(HasSubstr(c.file), HasSubstr(c.message))));
  }
  EXPECT_FALSE(std::ifstream("executed.txt").good());
}

absl::StatusOr<std::unique_ptr<TorchZipFile>> Parse(const std::vector<TestZipMember>& members,
                                                    const TorchZipOptions& options = {}) {
  return TorchZipFile::Create(std::make_unique<InMemoryFile>(ZipBytes(members)), options);
}

std::string Floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

TestZipMember Pickle(const std::vector<std::pair<std::string, std::string>>& entries) {
  return {.name = "a/data.pkl", .content = pickle::StateDict(entries)};
}

TEST(TorchZipTest, PutsViewsInOrder) {
  const std::string storage = pickle::Storage("FloatStorage", "0", 6);
  const auto dict = Parse({Pickle({{"plain", pickle::Tensor(storage, 0, {2, 3}, {3, 1})},
                                   {"columns", pickle::Tensor(storage, 0, {3, 2}, {1, 3})},
                                   {"repeated", pickle::Tensor(storage, 1, {2, 2}, {0, 1})},
                                   {"odd_strides", pickle::Tensor(storage, 2, {1, 3}, {77, 1})}}),
                           {.name = "a/data/0", .content = Floats({0, 1, 2, 3, 4, 5})},
                           {.name = "a/byteorder", .content = "little"}});
  ASSERT_THAT(dict, IsOk());
  const auto values = [&](absl::string_view name) {
    const TensorView view = (*dict)->Get(name).value();
    return std::vector<float>(view.as<float>(), view.as<float>() + view.num_elements());
  };
  EXPECT_EQ(values("plain"), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(values("columns"), (std::vector<float>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(values("repeated"), (std::vector<float>{1, 2, 1, 2}));
  EXPECT_EQ(values("odd_strides"), (std::vector<float>{2, 3, 4}));
}

TEST(TorchZipTest, RefusesOddArchives) {
  const std::string storage = pickle::Storage("FloatStorage", "0", 2);
  const TestZipMember good_pickle = Pickle({{"w", pickle::Tensor(storage, 0, {2}, {1})}});
  const TestZipMember good_data = {.name = "a/data/0", .content = Floats({1, 2})};
  EXPECT_THAT(Parse({good_pickle, good_data}), IsOk());
  TestZipMember wrong_crc = good_pickle;
  wrong_crc.declared_crc = 1;
  const struct {
    const char* what;
    std::vector<TestZipMember> members;
    const char* message;
  } kCases[] = {
      {"no pickle", {good_data}, "without <name>/data.pkl"},
      {"empty", {}, "without <name>/data.pkl"},
      {"pickle too deep",
       {{.name = "a/b/data.pkl", .content = good_pickle.content}},
       "without <name>/data.pkl"},
      {"two pickles",
       {good_pickle, good_data, {.name = "b/data.pkl", .content = good_pickle.content}},
       "two pickles"},
      {"big-endian", {good_pickle, good_data, {.name = "a/byteorder", .content = "big"}}, "big-endian"},
      {"wrong CRC", {wrong_crc, good_data}, "CRC-32 differs"},
      {"storage in another folder",
       {good_pickle, {.name = "b/data/0", .content = Floats({1, 2})}},
       "lacks storage '0'"},
      {"long storage", {good_pickle, {.name = "a/data/0", .content = Floats({1, 2, 3})}}, "has 12 bytes"},
      {"names outside",
       {Pickle({{"w", pickle::Tensor(pickle::Storage("FloatStorage", "../../etc/passwd", 2), 0, {2}, {1})}}),
        good_data},
       "lacks storage '../../etc/passwd'"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(Parse(c.members), Fails(absl::StatusCode::kInvalidArgument, HasSubstr(c.message))) << c.what;
  }
}

TEST(TorchZipTest, BoundsMemory) {
  // A megabyte of zeros in about a kilobyte.
  const int64_t elements = 1 << 18;
  const TestZipMember bomb = {
      .name = "a/data/0", .content = std::string(elements * 4, '\0'), .deflate = true};
  const std::string storage = pickle::Storage("FloatStorage", "0", elements);
  const TestZipMember pickle = Pickle({{"w", pickle::Tensor(storage, 0, {elements}, {1})}});
  EXPECT_THAT(Parse({pickle, bomb}), IsOk());
  EXPECT_THAT(Parse({pickle, bomb}, {.max_materialised_bytes = 1 << 19}),
              Fails(absl::StatusCode::kResourceExhausted, HasSubstr("'w' needs 1048576 bytes")));

  // One float seen as 2^40 of them.
  const std::string one = pickle::Storage("FloatStorage", "0", 1);
  EXPECT_THAT(Parse({Pickle({{"w", pickle::Tensor(one, 0, {int64_t{1} << 40}, {0})}}),
                     {.name = "a/data/0", .content = Floats({1})}}),
              Fails(absl::StatusCode::kResourceExhausted, HasSubstr("'w' needs 4398046511104 bytes")));

  // Declared small, unpacks large: not one byte more than declared is written.
  TestZipMember liar = bomb;
  liar.declared_size = 8;
  const std::string two = pickle::Storage("FloatStorage", "0", 2);
  EXPECT_THAT(Parse({Pickle({{"w", pickle::Tensor(two, 0, {2}, {1})}}), liar}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("does not unpack to its 8 bytes")));
  // Declared large, unpacks small.
  TestZipMember short_one = {.name = "a/data/0", .content = "12345678", .deflate = true, .declared_size = 16};
  const std::string four = pickle::Storage("FloatStorage", "0", 4);
  EXPECT_THAT(Parse({Pickle({{"w", pickle::Tensor(four, 0, {4}, {1})}}), short_one}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("does not unpack to its 16 bytes")));
}

}  // namespace
}  // namespace lancet

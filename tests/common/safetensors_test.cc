#include "common/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"

namespace lancet {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<std::unique_ptr<SafetensorsFile>> Parse(absl::string_view bytes, size_t shift = 0) {
  return SafetensorsFile::Create(std::make_unique<InMemoryFile>(bytes, shift));
}

// A header of one or more entries over `data_bytes` bytes of data.
absl::StatusOr<std::unique_ptr<SafetensorsFile>> ParseHeader(absl::string_view header, size_t data_bytes) {
  return Parse(SafetensorsBytes(header, std::string(data_bytes, 'x')));
}

TEST(SafetensorsTest, HandsOutTensors) {
  const float values[] = {1.5f, -2.0f, 3.25f, 0.0f, 8.0f, 9.0f};
  TensorFile tensors;
  tensors["matrix"] = {"F32", {2, 3}, std::string(reinterpret_cast<const char*>(values), sizeof(values))};
  tensors["scalar"] = {"I64", {}, std::string("\x07\0\0\0\0\0\0\0", 8)};
  tensors["empty"] = {"BF16", {0, 5}, ""};
  tensors["bytes"] = {"U8", {4}, "abcd"};
  const auto file = Parse(SerializeTensors(tensors));
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT((*file)->names(), ElementsAre("bytes", "empty", "matrix", "scalar"));
  const TensorView matrix = (*file)->Get("matrix").value();
  EXPECT_EQ(matrix.dtype, DType::kF32);
  EXPECT_EQ(matrix.shape, (Shape{2, 3}));
  EXPECT_EQ(std::memcmp(matrix.data, values, sizeof(values)), 0);
  EXPECT_EQ(*(*file)->Get("scalar")->as<int64_t>(), 7);
  EXPECT_EQ((*file)->Get("empty")->num_elements(), 0);
  EXPECT_THAT((*file)->Get("absent"),
              Fails(absl::StatusCode::kNotFound, HasSubstr("memory: has no tensor 'absent'")));
  EXPECT_TRUE((*file)->Contains("bytes"));
  EXPECT_FALSE((*file)->Contains("absent"));
}

// The format permits data at any byte; readers of the views need not care.
TEST(SafetensorsTest, AlignsTensorsThatLieOdd) {
  TensorFile tensors;
  const float value = 2.5f;
  tensors["a"] = {"U8", {1}, "z"};
  tensors["b"] = {"F32", {1}, std::string(reinterpret_cast<const char*>(&value), sizeof(value))};
  for (size_t shift = 0; shift < 4; ++shift) {
    const auto file = Parse(SerializeTensors(tensors), shift);
    ASSERT_THAT(file, IsOk());
    const TensorView view = (*file)->Get("b").value();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % sizeof(float), 0u);
    EXPECT_EQ(*view.as<float>(), value);
    (*file)->Release("b");
    (*file)->Release("absent");
    EXPECT_EQ(*view.as<float>(), value);
  }
}

TEST(SafetensorsTest, AcceptsMetadataAndAnyOrder) {
  const auto file = ParseHeader(R"({"__metadata__": {"format": "pt", "note": "x"},
      "b": {"data_offsets": [2, 4], "shape": [1], "dtype": "BF16"},
      "a": {"dtype": "U8", "shape": [2, 1], "data_offsets": [0, 2]}}   )",
                                4);
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT((*file)->names(), ElementsAre("a", "b"));
}

TEST(SafetensorsTest, RefusesABadHeader) {
  const std::string kOne = R"("a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]})";
  const auto entry = [](absl::string_view fields) { return absl::StrCat("{\"a\": {", fields, "}}"); };
  const struct {
    std::string header;
    const char* message;
  } kCases[] = {
      {"[]", "does not start with '{'"},
      {" {}", "does not start with '{'"},
      {"", "does not start with '{'"},
      {"{", "not valid JSON"},
      {absl::StrCat("{", kOne, "} x"), "not valid JSON"},
      {absl::StrCat("{", kOne, ", ", kOne, "}"), "tensor 'a' appears twice"},
      {R"({"a": 5})", "tensor 'a' has the number 5"},
      {R"({"a": []})", "tensor 'a' has an array"},
      {R"({"a": {"b": {}}})", "tensor 'a' has the unknown key 'b'"},
      {R"({"__metadata__": {"a": 1}})", "the number 1"},
      {R"({"__metadata__": {"a": {}}})", "an object"},
      {R"({"__metadata__": {"a": "x", "a": "y"}})", "'a' of __metadata__ appears twice"},
      {R"({"__metadata__": {}, "__metadata__": {}})", "'__metadata__' appears twice"},
      {entry(R"("dtype": "U8", "shape": [4])"), "has no data_offsets"},
      {entry(R"("dtype": "U8", "data_offsets": [0, 4])"), "has no shape"},
      {entry(R"("shape": [4], "data_offsets": [0, 4])"), "has no dtype"},
      {entry(R"("dtype": "U8", "dtype": "U8", "shape": [4], "data_offsets": [0, 4])"),
       "the key 'dtype' twice"},
      {entry(R"("dtype": "Q4", "shape": [4], "data_offsets": [0, 4])"), "unsupported dtype 'Q4'"},
      {entry(R"("dtype": 3, "shape": [4], "data_offsets": [0, 4])"), "the number 3"},
      {entry(R"("dtype": "U8", "shape": 4, "data_offsets": [0, 4])"), "the number 4"},
      {entry(R"("dtype": "U8", "shape": [-4], "data_offsets": [0, 4])"), "the negative number -4"},
      {entry(R"("dtype": "U8", "shape": [4.0], "data_offsets": [0, 4])"), "the number '4.0'"},
      {entry(R"("dtype": "U8", "shape": ["4"], "data_offsets": [0, 4])"), "a string"},
      {entry(R"("dtype": "U8", "shape": [[4]], "data_offsets": [0, 4])"), "an array"},
      {entry(R"("dtype": "U8", "shape": [1,1,1,1,1,1,1,1,4], "data_offsets": [0, 4])"),
       "more than 8 dimensions"},
      {entry(R"("dtype": "U8", "shape": [4], "data_offsets": [0])"), "fewer than two"},
      {entry(R"("dtype": "U8", "shape": [4], "data_offsets": [0, 4, 4])"), "more than two"},
      {entry(R"("dtype": "U8", "shape": [4], "data_offsets": [-1, 3])"), "the negative number -1"},
      {entry(R"("dtype": "U8", "shape": [4], "data_offsets": [4, 0])"), "before it begins"},
      {entry(R"("dtype": "U8", "shape": [4], "data_offsets": [0, null])"), "null"},
      {entry(R"("dtype": "U8", "shape": [true], "data_offsets": [0, 4])"), "a boolean"},
      {entry(R"("dtype": "U8", "shape": [3], "data_offsets": [0, 4])"),
       "needs 3 bytes; its data_offsets hold 4"},
      {entry(R"("dtype": "F32", "shape": [4], "data_offsets": [0, 4])"), "needs 16 bytes"},
      {entry(R"("dtype": "U8", "shape": [4], "data_offsets": [18446744073709551612, 18446744073709551615])"),
       "hold 3"},
      {entry(R"("dtype": "F32", "shape": [4611686018427387905], "data_offsets": [0, 4])"),
       "too large to exist"},
      {entry(R"("dtype": "U8", "shape": [4294967296, 4294967296, 4], "data_offsets": [0, 4])"),
       "too large to exist"},
      {entry(R"("dtype": "U8", "shape": [18446744073709551615], "data_offsets": [0, 4])"),
       "extent 18446744073709551615"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(ParseHeader(c.header, 4),
                Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("memory: "), HasSubstr(c.message))))
        << c.header;
  }
}

TEST(SafetensorsTest, RefusesDeepNesting) {
  std::string header = "{\"a\": ";
  header.append(1 << 20, '[');
  EXPECT_THAT(ParseHeader(header, 4), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("an array")));
}

TEST(SafetensorsTest, RefusesDataThatIsNotTiled) {
  const auto header = [](int begin_a, int end_a, int begin_b, int end_b) {
    return absl::StrCat(R"({"a": {"dtype": "U8", "shape": [)", end_a - begin_a, R"(], "data_offsets": [)",
                        begin_a, ", ", end_a, R"(]}, "b": {"dtype": "U8", "shape": [)", end_b - begin_b,
                        R"(], "data_offsets": [)", begin_b, ", ", end_b, "]}}");
  };
  EXPECT_THAT(ParseHeader(header(0, 4, 4, 8), 8), IsOk());
  EXPECT_THAT(
      ParseHeader(header(0, 4, 3, 8), 8),
      Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("tensor 'b'"), HasSubstr("they overlap"))));
  EXPECT_THAT(ParseHeader(header(0, 4, 0, 4), 4),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("they overlap")));
  EXPECT_THAT(ParseHeader(header(0, 4, 5, 8), 8),
              Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("tensor 'b'"), HasSubstr("a hole"))));
  EXPECT_THAT(ParseHeader(header(1, 4, 4, 8), 8),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("a hole")));
  EXPECT_THAT(
      ParseHeader(header(0, 4, 4, 8), 7),
      Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("tensor 'b'"), HasSubstr("truncated"))));
  EXPECT_THAT(ParseHeader(header(0, 4, 4, 8), 9),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("the file has 9")));
}

TEST(SafetensorsTest, RefusesABadLength) {
  const std::string good = SafetensorsBytes("{}", "");
  EXPECT_THAT(Parse(good), IsOk());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(Parse(good.substr(0, size)),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("memory: ")));
  }
  std::string huge = good;
  huge[5] = 1;  // 2^40
  EXPECT_THAT(Parse(huge), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("the limit is 100000000")));
  huge.replace(0, 8, 8, '\xff');
  EXPECT_THAT(Parse(huge), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("the limit is 100000000")));
  std::string longer = good;
  longer[2] = 1;
  EXPECT_THAT(Parse(longer), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("truncated")));
}

// A hostile name stays one short, printable line.
TEST(SafetensorsTest, QuotesNames) {
  const std::string name = absl::StrCat("evil\\n\\u001b", std::string(5000, 'a'));
  const auto file = ParseHeader(absl::StrCat("{\"", name, "\": 1}"), 0);
  ASSERT_FALSE(file.ok());
  EXPECT_LT(file.status().message().size(), 400u);
  EXPECT_EQ(file.status().message().find('\n'), absl::string_view::npos);
}

}  // namespace
}  // namespace lancet

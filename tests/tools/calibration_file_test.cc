#include "tools/calibration/calibration_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kLayer[] = "language_model.model.layers.0.";

template <typename T>
std::string Bytes(std::initializer_list<T> values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), std::data(values), bytes.size());
  return bytes;
}

// Two Linears of one product with all that a file may have, and one with the least.
TensorFile GoodTensors() {
  TensorFile tensors;
  for (const char* linear : {"self_attn.q_proj_moe_gen", "self_attn.k_proj_moe_gen"}) {
    const std::string name = absl::StrCat(kLayer, linear);
    tensors[name + ".sum_abs"] = {"F32", {2}, Bytes<float>({3.0f, 1.5f})};
    tensors[name + ".n_tokens"] = {"I64", {}, Bytes<int64_t>({2})};
    tensors[name + ".max_abs"] = {"F32", {2}, Bytes<float>({2.0f, 1.0f})};
    tensors[name + ".percentiles"] = {"F32", {4}, Bytes<float>({2.0f, 2.0f, 2.0f, 2.0f})};
  }
  const std::string product = absl::StrCat(kLayer, "self_attn.q_proj_moe_gen");
  tensors[product + ".abs_bits"] = {"I32", {3}, Bytes<int32_t>({0x3f00, 0x3f80, 0x4000})};
  tensors[product + ".abs_counts"] = {"I64", {3}, Bytes<int64_t>({1, 2, 1})};
  tensors[product + ".xtx"] = {"F32", {2, 2}, Bytes<float>({5.0f, 2.0f, 2.0f, 1.25f})};
  tensors[absl::StrCat(kLayer, "mlp.down_proj.sum_abs")] = {"F32", {1}, Bytes<float>({7.0f})};
  tensors[absl::StrCat(kLayer, "mlp.down_proj.n_tokens")] = {"I64", {}, Bytes<int64_t>({4})};
  tensors[absl::StrCat(kLayer, "input_layernorm.s")] = {"F32", {1}, Bytes<float>({-1.0f})};
  return tensors;
}

absl::StatusOr<std::unique_ptr<CalibrationFile>> Read(const TensorFile& tensors,
                                                      const std::string& metadata) {
  std::string bytes = SerializeTensors(tensors);
  if (!metadata.empty()) {
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    const std::string header = bytes.substr(9, length - 1);
    bytes = SafetensorsBytes(absl::StrCat("{\"__metadata__\": ", metadata, ", ", header),
                             bytes.substr(8 + length));
  }
  auto file = SafetensorsFile::Create(std::make_unique<InMemoryFile>(bytes));
  if (!file.ok()) return file.status();
  return CalibrationFile::Create(*std::move(file));
}

std::string Metadata(const std::string& version = "1",
                     const std::string& fingerprint = std::string(32, 'a')) {
  return absl::StrCat(R"({"format": "lancet-calibration", "version": ")", version, R"(", "fingerprint": ")",
                      fingerprint, R"(", "trunk_fingerprint": ")", std::string(32, 'b'),
                      R"(", "trunk": "source"})");
}

TEST(CalibrationFileTest, ReadsWhatItHolds) {
  const auto file = Read(GoodTensors(), Metadata());
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->fingerprint(), std::string(32, 'a'));
  EXPECT_EQ((*file)->trunk_fingerprint(), std::string(32, 'b'));
  EXPECT_EQ((*file)->trunk(), "source");
  EXPECT_THAT((*file)->linears(), ElementsAre(absl::StrCat(kLayer, "mlp.down_proj"),
                                              absl::StrCat(kLayer, "self_attn.k_proj_moe_gen"),
                                              absl::StrCat(kLayer, "self_attn.q_proj_moe_gen")));
  // k shares q's input, and with it what is stored once.
  const auto k = (*file)->Get(absl::StrCat(kLayer, "self_attn.k_proj_moe_gen"));
  ASSERT_THAT(k, IsOk());
  EXPECT_EQ(k->in, 2);
  EXPECT_EQ(k->n_tokens, 2);
  EXPECT_THAT(k->sum_abs, ElementsAre(3.0f, 1.5f));
  EXPECT_THAT(k->max_abs, ElementsAre(2.0f, 1.0f));
  EXPECT_THAT(k->xtx, ElementsAre(5.0f, 2.0f, 2.0f, 1.25f));
  EXPECT_THAT(k->abs_counts, ElementsAre(1, 2, 1));
  const auto down = (*file)->Get(absl::StrCat(kLayer, "mlp.down_proj"));
  ASSERT_THAT(down, IsOk());
  EXPECT_TRUE(down->max_abs.empty() && down->percentiles.empty() && down->xtx.empty() &&
              down->abs_bits.empty());
  EXPECT_THAT((*file)->Get(absl::StrCat(kLayer, "mlp.up_proj")).status(),
              Fails(absl::StatusCode::kNotFound, HasSubstr("mlp.up_proj")));
}

TEST(CalibrationFileTest, ReadsFilesOfOtherToolsWithoutMetadata) {
  const auto file = Read(GoodTensors(), "");
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->fingerprint(), "");
  EXPECT_EQ((*file)->linears().size(), 3u);
}

TEST(CalibrationFileTest, RefusesOtherVersionsAndFormats) {
  const auto refused = [](const std::string& metadata) { return Read(GoodTensors(), metadata).status(); };
  EXPECT_THAT(refused(Metadata("2")), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("version is '2'")));
  EXPECT_THAT(
      refused(Metadata("1", "abc")),
      Fails(absl::StatusCode::kInvalidArgument, HasSubstr("fingerprint is 'abc'; expected 32 hex digits")));
  EXPECT_THAT(refused(R"({"format": "pt"})"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("format is 'pt'")));
}

TEST(CalibrationFileTest, RefusesOddTensors) {
  const auto refused = [](const std::string& tensor, TestTensor with) {
    TensorFile tensors = GoodTensors();
    tensors[absl::StrCat(kLayer, tensor)] = std::move(with);
    return Read(tensors, Metadata()).status();
  };
  const std::string q = "self_attn.q_proj_moe_gen";
  const auto invalid = [](const char* what) {
    return Fails(absl::StatusCode::kInvalidArgument, HasSubstr(what));
  };
  EXPECT_THAT(refused(q + ".sum_abs", {"F32", {2}, Bytes<float>({-1.0f, 1.0f})}),
              invalid("negative or not finite"));
  EXPECT_THAT(refused(q + ".max_abs", {"F32", {2}, Bytes<float>({NAN, 1.0f})}), invalid(".max_abs"));
  EXPECT_THAT(refused(q + ".max_abs", {"F32", {1}, Bytes<float>({1.0f})}), invalid(".max_abs"));
  EXPECT_THAT(refused(q + ".n_tokens", {"I64", {}, Bytes<int64_t>({0})}),
              invalid(".n_tokens' is missing or not"));
  EXPECT_THAT(refused(q + ".sum_abs", {"I32", {2}, Bytes<int32_t>({1, 1})}), invalid("expected F32 [in]"));
  EXPECT_THAT(refused(q + ".xtx", {"F32", {4}, Bytes<float>({1, 1, 1, 1})}), invalid(".xtx"));
  EXPECT_THAT(refused(q + ".abs_bits", {"I32", {3}, Bytes<int32_t>({1, 1, 2})}), invalid("has 1 at 1"));
  EXPECT_THAT(refused(q + ".abs_bits", {"I32", {3}, Bytes<int32_t>({1, 2, 0x7f80})}), invalid("increasing"));
  EXPECT_THAT(refused(q + ".abs_counts", {"I64", {3}, Bytes<int64_t>({1, 0, 1})}), invalid("has 0 at 1"));
  EXPECT_THAT(refused(q + ".abs_counts", {"I64", {2}, Bytes<int64_t>({1, 1})}), invalid(".abs_counts"));
  TensorFile other;
  other["weight"] = {"F32", {1}, Bytes<float>({1.0f})};
  EXPECT_THAT(Read(other, "").status(), invalid("not a file of calibration statistics"));
}

TEST(CalibrationFileTest, NamesProducts) {
  EXPECT_EQ(ProductName("a.self_attn.v_proj_moe_gen"), "a.self_attn.q_proj_moe_gen");
  EXPECT_EQ(ProductName("a.mlp_moe_gen.up_proj"), "a.mlp_moe_gen.gate_proj");
  EXPECT_EQ(ProductName("a.self_attn.o_proj"), "a.self_attn.o_proj");
  EXPECT_EQ(ProductName("k_proj"), "q_proj");
}

}  // namespace
}  // namespace lancet

#include "tools/fit_preview/card_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

namespace lancet {
namespace {

using ::testing::HasSubstr;

LatentRgb SomeMap(float scale) {
  LatentRgb map;
  map.weight[1][7] = 0.123456f * scale;
  map.bias = {-0.5f, 0.25f, 1e-7f};
  return map;
}

TEST(CardFileTest, KeepsTheOtherFieldsAndTheirOrder) {
  const std::string old_text = R"({"name": "x", "sizes": [[256, 256]], "default_size": [256, 256]})";
  const auto once = CardWithLatentRgb(old_text, "card", SomeMap(1));
  ASSERT_TRUE(once.ok()) << once.status();
  EXPECT_LT(once->find("\"sizes\""), once->find("\"default_size\""));
  const auto twice = CardWithLatentRgb(*once, "card", SomeMap(2));
  ASSERT_TRUE(twice.ok()) << twice.status();
  const auto card = ParseModelCard(*twice, "card");
  ASSERT_TRUE(card.ok()) << card.status();
  EXPECT_EQ(card->name, "x");
  EXPECT_EQ(card->default_size, (CardSize{256, 256}));
  EXPECT_EQ(card->sizes.size(), 1u);
  ASSERT_TRUE(card->latent_rgb.has_value());
  EXPECT_FLOAT_EQ(card->latent_rgb->weight[1][7], 0.24691f);  // five digits
  EXPECT_FLOAT_EQ(card->latent_rgb->bias[2], 1e-7f);
}

TEST(CardFileTest, RefusesWhatIsNoCard) {
  EXPECT_THAT(std::string(CardWithLatentRgb("[1]", "my.json", SomeMap(1)).status().message()),
              HasSubstr("my.json"));
  EXPECT_FALSE(CardWithLatentRgb("{\"name\": ", "my.json", SomeMap(1)).ok());
}

TEST(CardFileTest, WritesANewFileAndReplacesAnOldOne) {
  const std::string path = testing::TempDir() + "/card_file_test.json";
  std::remove(path.c_str());
  for (const float scale : {1.0f, 2.0f}) {
    const absl::Status status = WriteLatentRgb(path, SomeMap(scale));
    ASSERT_TRUE(status.ok()) << status;
    std::ifstream in(path);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    const auto card = ParseModelCard(text, path);
    ASSERT_TRUE(card.ok()) << card.status();
    EXPECT_NEAR(card->latent_rgb->weight[1][7], 0.123456f * scale, 1e-5);
  }
  EXPECT_EQ(WriteLatentRgb("/nonexistent/lancet.json", SomeMap(1)).code(), absl::StatusCode::kUnavailable);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace lancet

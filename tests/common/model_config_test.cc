#include "common/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

json GoodConfig() {
  return {{"hidden_size", 2048},
          {"num_hidden_layers", 36},
          {"num_attention_heads", 16},
          {"num_key_value_heads", 2},
          {"intermediate_size", 11008},
          {"vocab_size", 151936},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 1000000.0},
          {"hidden_act", "silu"},
          {"use_sliding_window", false},
          {"tie_word_embeddings", true},
          {"rope_scaling", {{"type", "mrope"}, {"mrope_section", {16, 24, 24}}}},
          {"bos_token_id", 151643},
          {"eos_token_id", 151645},
          {"vision_start_token_id", 151652},
          {"vision_end_token_id", 151653},
          {"video_token_id", 151656}};
}

TEST(ParseModelConfigTest, ReadsTheReleasesSizes) {
  const auto config = ParseModelConfig(GoodConfig().dump(), "llm_config.json");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->hidden_size, 2048);
  EXPECT_EQ(config->num_layers, 36);
  EXPECT_EQ(config->num_heads, 16);
  EXPECT_EQ(config->num_kv_heads, 2);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->intermediate_size, 11008);
  EXPECT_EQ(config->vocab_size, 151936);
  EXPECT_FLOAT_EQ(config->rms_norm_eps, 1e-6f);
  EXPECT_EQ(config->rope_theta, 1e6);
  EXPECT_EQ(config->mrope_section, (std::array<int, 3>{16, 24, 24}));
  EXPECT_EQ(config->vision_start_token_id, 151652);
  EXPECT_EQ(config->vision_end_token_id, 151653);
  EXPECT_EQ(config->video_token_id, 151656);
  EXPECT_EQ(config->eos_token_id, 151645);
  EXPECT_EQ(config->bos_token_id, 151643);
}

TEST(ParseModelConfigTest, ReadsTheBundledConfigs) {
  for (const char* path :
       {LANCET_TEST_DATA "/nano/Lance_3B/llm_config.json", LANCET_DEMO_MODEL "/Lance_3B/llm_config.json"}) {
    EXPECT_THAT(ParseModelConfig(ReadTextFile(path, 1 << 20).value(), path), IsOk());
  }
}

TEST(ParseModelConfigTest, TakesAHeadSizeOfItsOwn) {
  json config = GoodConfig();
  config["head_dim"] = 64;
  config["rope_scaling"]["mrope_section"] = {8, 12, 12};
  config["rope_scaling"]["type"] = "default";
  EXPECT_EQ(ParseModelConfig(config.dump(), "c")->head_dim, 64);
  config.erase("bos_token_id");
  EXPECT_THAT(ParseModelConfig(config.dump(), "c"), IsOk());
}

TEST(ParseModelConfigTest, NamesWhatIsWrong) {
  const json absent;  // null: the key is removed
  const struct {
    const char* key;
    json value;
    const char* message;
  } kCases[] = {
      {"hidden_size", absent, "hidden_size is missing"},
      {"hidden_size", 0, "hidden_size is '0'; expected 16 to 131072"},
      {"hidden_size", 2056, "hidden_size is 2056; expected a multiple of 16"},
      {"hidden_size", 1 << 20, "expected 16 to 131072"},
      {"hidden_size", 18446744073709551615u, "hidden_size is '18446744073709551615'"},
      {"hidden_size", "2048", "hidden_size is not an integer"},
      {"hidden_size", 2048.0, "hidden_size is not an integer"},
      {"hidden_size", -2048, "hidden_size is '-2048'"},
      {"num_hidden_layers", 0, "num_hidden_layers is '0'"},
      {"num_hidden_layers", 100000, "num_hidden_layers is '100000'; expected 1 to 1024"},
      {"num_attention_heads", absent, "num_attention_heads is missing"},
      {"num_attention_heads", 12, "num_attention_heads is 12; expected a divisor of 2048"},
      {"num_attention_heads", 2048, "num_attention_heads is '2048'"},
      {"num_attention_heads", 256, "head_dim is 8"},
      {"num_key_value_heads", 3, "num_key_value_heads is 3; expected a divisor of 16"},
      {"num_key_value_heads", 32, "num_key_value_heads is '32'; expected 1 to 16"},
      {"num_key_value_heads", 0, "num_key_value_heads is '0'"},
      {"head_dim", 127, "head_dim is 127"},
      {"head_dim", 72, "head_dim is 72; expected a multiple of 16"},
      {"head_dim", 64, "mrope_section sums to 64; expected half of the head size 64"},
      {"intermediate_size", 11000, "intermediate_size is 11000; expected a multiple of 16"},
      {"vocab_size", 1000, "vision_start_token_id is '151652'; expected 0 to 999"},
      {"vocab_size", -1, "vocab_size is '-1'"},
      {"rms_norm_eps", -1.0, "rms_norm_eps is '-1.0'"},
      {"rms_norm_eps", "tiny", "rms_norm_eps is not a number"},
      {"rope_theta", 0, "rope_theta is '0'"},
      {"rope_scaling", 3, "rope_scaling is not an object"},
      {"rope_scaling", {{"type", "yarn"}}, "rope_scaling: type is not 'mrope'"},
      {"rope_scaling", {{"mrope_section", {16, 24}}}, "mrope_section is not a list of 3"},
      {"rope_scaling", {{"mrope_section", {16, 24, 25}}}, "mrope_section sums to 65"},
      {"rope_scaling", {{"mrope_section", {16, -24, 72}}}, "mrope_section is '-24'"},
      {"rope_scaling", {{"mrope_section", {16, 24, "24"}}}, "mrope_section is not an integer"},
      {"hidden_act", "gelu", "hidden_act is not 'silu'"},
      {"use_sliding_window", true, "use_sliding_window is set"},
      {"video_token_id", absent, "video_token_id is missing"},
      {"eos_token_id", absent, "eos_token_id is missing"},
      {"eos_token_id", -1, "eos_token_id is '-1'"},
      {"vision_end_token_id", 151936, "vision_end_token_id is '151936'; expected 0 to 151935"},
  };
  for (const auto& c : kCases) {
    json config = GoodConfig();
    if (c.value.is_null()) {
      config.erase(c.key);
    } else {
      config[c.key] = c.value;
    }
    EXPECT_THAT(
        ParseModelConfig(config.dump(), "some.json"),
        Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("some.json"), HasSubstr(c.message))))
        << c.key << " " << c.value;
  }
  EXPECT_THAT(ParseModelConfig("[]", "c"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("not a JSON object")));
  EXPECT_THAT(ParseModelConfig("", "c"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("not valid JSON")));
}

json GoodCard() {
  return {{"name", "a model"},
          {"default_size", {256, 512}},
          {"sizes", {{256, 512}, {512, 256}}},
          {"latent_rgb",
           {{"weight", std::vector<std::vector<double>>(3, std::vector<double>(48, 0.25))},
            {"bias", {0.5, -0.5, 0}}}}};
}

TEST(ParseModelCardTest, ReadsEveryField) {
  const auto card = ParseModelCard(GoodCard().dump(), "lancet.json");
  ASSERT_THAT(card, IsOk());
  EXPECT_EQ(card->name, "a model");
  EXPECT_EQ(card->default_size, (CardSize{256, 512}));
  ASSERT_EQ(card->sizes.size(), 2u);
  EXPECT_EQ(card->sizes[1], (CardSize{512, 256}));
  ASSERT_TRUE(card->latent_rgb.has_value());
  EXPECT_EQ(card->latent_rgb->weight[2][47], 0.25f);
  EXPECT_EQ(card->latent_rgb->bias[1], -0.5f);
}

TEST(ParseModelCardTest, EveryFieldIsOptional) {
  const auto card = ParseModelCard("{}", "lancet.json");
  ASSERT_THAT(card, IsOk());
  EXPECT_EQ(card->default_size, (CardSize{768, 768}));
  EXPECT_TRUE(card->sizes.empty());
  EXPECT_FALSE(card->latent_rgb.has_value());
  EXPECT_EQ(ParseModelCard(R"({"sizes": [[64, 32]]})", "c")->default_size, (CardSize{64, 32}));
}

TEST(ParseModelCardTest, NamesWhatIsWrong) {
  const struct {
    const char* path;
    json value;
    const char* message;
  } kCases[] = {
      {"/name", 5, "name is not a string"},
      {"/name", std::string(300, 'x'), "name is not a string of at most 200"},
      {"/default_size", {256}, "default_size is not a pair"},
      {"/default_size", {256, 250}, "default_size is 256x250; expected multiples of 16"},
      {"/default_size", {0, 256}, "default_size is '0'"},
      {"/default_size", {256, 1 << 20}, "default_size is '1048576'"},
      {"/sizes", 5, "sizes is not a list"},
      {"/sizes/0", "big", "sizes is not a pair"},
      {"/latent_rgb", 5, "latent_rgb is not an object"},
      {"/latent_rgb/weight", {1, 2, 3}, "weight is not a list of 48 numbers"},
      {"/latent_rgb/weight", {1, 2}, "weight is not a list of 3 rows"},
      {"/latent_rgb/weight/1", std::vector<double>(47, 0), "weight is not a list of 48 numbers"},
      {"/latent_rgb/weight/1/5", "x", "weight is not a number"},
      {"/latent_rgb/weight/1/5", 1e30, "weight is '1e+30'"},
      {"/latent_rgb/bias", {1, 2}, "bias is not a list of 3 numbers"},
      {"/latent_rgb/bias", json(), "bias is missing"},
  };
  for (const auto& c : kCases) {
    json card = GoodCard();
    card[json::json_pointer(c.path)] = c.value;
    EXPECT_THAT(
        ParseModelCard(card.dump(), "lancet.json"),
        Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("lancet.json"), HasSubstr(c.message))))
        << c.path << " " << c.value;
  }
}

TEST(ParseModelCardTest, ReadsTheBundledCard) {
  const char* path = LANCET_DEMO_MODEL "/lancet.json";
  const auto card = ParseModelCard(ReadTextFile(path, 1 << 20).value(), path);
  ASSERT_THAT(card, IsOk());
  EXPECT_EQ(card->name, "emoji-scenes");
  EXPECT_EQ(card->default_size, (CardSize{256, 256}));
}

}  // namespace
}  // namespace lancet

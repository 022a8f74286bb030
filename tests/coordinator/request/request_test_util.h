// What the tests of the request pipeline share: golden files and the small tokenizers kept with them.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/request/tokenizer.h"

namespace lancet {

inline TokenizerPaths TokenizerIn(const std::string& dir) {
  return {absl::StrCat(dir, "/vocab.json"), absl::StrCat(dir, "/merges.txt"),
          absl::StrCat(dir, "/tokenizer_config.json")};
}

inline TokenizerPaths TinyTokenizer() {
  return TokenizerIn(absl::StrCat(LANCET_TEST_DATA, "/tokenizer_tiny"));
}

// Null, with a failed expectation, if it can't be loaded.
inline std::unique_ptr<Tokenizer> LoadTokenizer(const TokenizerPaths& paths) {
  auto tokenizer = Tokenizer::Load(paths);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

inline nlohmann::json ReadJsonFile(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  return nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
}

// [[value, count], ...] to values.
inline std::vector<int32_t> ExpandRuns(const nlohmann::json& runs) {
  std::vector<int32_t> values;
  for (const nlohmann::json& run : runs) {
    values.insert(values.end(), run.at(1).get<size_t>(), run.at(0).get<int32_t>());
  }
  return values;
}

}  // namespace lancet

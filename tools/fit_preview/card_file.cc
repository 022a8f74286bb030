#include "tools/fit_preview/card_file.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// A card is a page of numbers; more is some other file.
constexpr size_t kMaxCardBytes = 1 << 20;

template <typename Numbers>
std::string Row(const Numbers& numbers) {
  std::vector<std::string> texts;
  for (const float x : numbers) texts.push_back(absl::StrFormat("%.5g", x));
  return absl::StrCat("[", absl::StrJoin(texts, ", "), "]");
}

}  // namespace

absl::StatusOr<std::string> CardWithLatentRgb(const std::string& old_text, const std::string& source,
                                              const LatentRgb& map) {
  nlohmann::ordered_json card = nlohmann::ordered_json::object();
  if (!old_text.empty()) {
    LANCET_RETURN_IF_ERROR(ParseModelCard(old_text, source).status());
    card = nlohmann::ordered_json::parse(old_text, nullptr, false);
  }
  std::string text = "{\n";
  for (const auto& [key, value] : card.items()) {
    if (key != "latent_rgb") absl::StrAppend(&text, "  \"", key, "\": ", value.dump(), ",\n");
  }
  absl::StrAppend(&text, "  \"latent_rgb\": {\n    \"weight\": [\n      ", Row(map.weight[0]), ",\n      ",
                  Row(map.weight[1]), ",\n      ", Row(map.weight[2]),
                  "\n    ],\n    \"bias\": ", Row(map.bias), "\n  }\n}\n");
  LANCET_RETURN_IF_ERROR(ParseModelCard(text, source).status());  // what is written can be read
  return text;
}

absl::Status WriteLatentRgb(const std::string& path, const LatentRgb& map) {
  std::string old_text;
  if (std::ifstream in(path, std::ios::binary); in) {
    std::vector<char> bytes(kMaxCardBytes + 1);
    in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (in.bad() || static_cast<size_t>(in.gcount()) > kMaxCardBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": not readable or larger than ", kMaxCardBytes, " bytes"));
    }
    old_text.assign(bytes.data(), in.gcount());
  }
  LANCET_ASSIGN_OR_RETURN(const std::string text, CardWithLatentRgb(old_text, path, map));
  const std::string temporary = absl::StrCat(path, ".new");
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  if (!out || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    return absl::UnavailableError(absl::StrCat(path, ": cannot be written"));
  }
  return absl::OkStatus();
}

}  // namespace lancet

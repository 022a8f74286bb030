// The demo model changes pictures as it is told.
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

// What an independent implementation reached, less what another order of rounding may cost.
constexpr double kPsnrSlackDb = 1.5;
constexpr uint64_t kSeed = 42;
constexpr int kSteps = 30;
constexpr size_t kPictures = LANCET_PICTURES;

TEST(EditsTest, GroupOfTwoReachesTheExpectedLikeness) {
  auto cluster = Cluster::Start(DemoCluster(2));
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const std::string folder = LANCET_DEMO_MODEL "/expected/";
  std::ifstream file(folder + "edits.json");
  const nlohmann::json all = nlohmann::json::parse(file);
  ASSERT_EQ(all.size(), 11u);
  size_t done = 0;
  for (const nlohmann::json& edit : all) {
    if (done++ == kPictures) break;
    GenerationRequest request = MakeRequest(edit["instruction"], kSteps, kSeed);
    SCOPED_TRACE(request.prompt);
    request.image = ReadBytes(absl::StrCat(folder, edit["source"].get<std::string>()));
    EventLog events;
    const auto result = (*cluster)->client().Edit(request, &events, nullptr);
    ASSERT_TRUE(result.ok()) << result.status() << (*cluster)->Logs();
    const auto ideal = ReadPng(absl::StrCat(folder, edit["picture"].get<std::string>()));
    const auto picture = Decode(result->image);
    ASSERT_TRUE(ideal.ok() && picture.ok()) << ideal.status() << picture.status();
    ASSERT_EQ(picture->width, ideal->width);
    ASSERT_EQ(picture->height, ideal->height);
    const double psnr = Psnr(*picture, *ideal);
    const double seen = edit["psnr_seen_db"];
    RecordProperty(absl::StrCat("edit_", done - 1), absl::StrCat(psnr, " dB, ", seen, " dB seen"));
    EXPECT_GE(psnr, seen - kPsnrSlackDb);
  }
}

}  // namespace
}  // namespace lancet

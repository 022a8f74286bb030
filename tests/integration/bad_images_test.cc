// Requests with a picture that can't be served, through real programs: each gets its status and a reason that
// names the field, and the next one is served.
#include <unistd.h>
#include <zlib.h>

#include <filesystem>
#include <functional>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

constexpr char kNano[] = LANCET_TEST_DATA "/nano";
constexpr size_t kPngHeader = 8 + 25;  // the signature and the first chunk

std::string GoodFile() { return ReadBytes(std::string(kNano) + "/golden/edit_256res.source.png"); }

void AppendBigEndian(std::string& bytes, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
}

// A PNG file with the chunk that says how many frames it has.
std::string AnimatedFile() {
  std::string chunk = "acTL";
  AppendBigEndian(chunk, 2);  // frames
  AppendBigEndian(chunk, 0);  // repetitions
  std::string whole;
  AppendBigEndian(whole, static_cast<uint32_t>(chunk.size() - 4));
  whole += chunk;
  AppendBigEndian(whole, static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(chunk.data()),
                                                     static_cast<uInt>(chunk.size()))));
  return GoodFile().insert(kPngHeader, whole);
}

// A PNG file whose header claims 60000 x 60000.
std::string HugeFile() {
  std::string size;
  AppendBigEndian(size, 60000);
  AppendBigEndian(size, 60000);
  return GoodFile().replace(16, 8, size);
}

DescriptionRequest Question(std::string file) { return MakeQuestion(std::move(file), "What is it?", 3); }

GenerationRequest Change(std::string file) {
  GenerationRequest request = MakeRequest("make it blue", 1);
  request.image = std::move(file);
  request.size = {64, 64};
  return request;
}

class BadImagesTest : public testing::Test {
 protected:
  static void ExpectRefused(const absl::Status& status, absl::StatusCode code, const std::string& reason) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
  }
};

TEST_F(BadImagesTest, AreRefusedByNameAndHarmless) {
  auto cluster = Cluster::Start(NanoCluster(1));
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  GenerationClient& client = (*cluster)->client();
  EventLog events;
  const struct {
    const char* name;
    std::string file;
    const char* reason;
  } files[] = {
      {"nothing", "", "images"},
      {"text", "a picture of a cat", "images"},
      {"cut off", GoodFile().substr(0, GoodFile().size() / 2), "images"},
      {"animated", AnimatedFile(), "animated"},
      {"huge", HugeFile(), "60000"},
      {"many bytes", std::string((16 << 20) + 1, '\0'), "images"},
  };
  for (const auto& bad : files) {
    SCOPED_TRACE(bad.name);
    ExpectRefused(client.Describe(Question(bad.file), &events, nullptr).status(),
                  absl::StatusCode::kInvalidArgument, bad.reason);
    ExpectRefused(client.Edit(Change(bad.file), &events, nullptr).status(),
                  absl::StatusCode::kInvalidArgument, bad.reason);
  }
  DescriptionRequest question = Question(GoodFile());
  question.temperature = std::numeric_limits<float>::quiet_NaN();
  ExpectRefused(client.Describe(question, &events, nullptr).status(), absl::StatusCode::kInvalidArgument,
                "temperature");
  question = Question(GoodFile());
  question.max_new_tokens = 0;
  ExpectRefused(client.Describe(question, &events, nullptr).status(), absl::StatusCode::kInvalidArgument,
                "max_new_tokens");
  EXPECT_TRUE(events.started.empty());
  const auto answered = client.Describe(Question(GoodFile()), &events, nullptr);
  EXPECT_TRUE(answered.ok()) << answered.status() << (*cluster)->Logs();
  const auto changed = client.Edit(Change(GoodFile()), &events, nullptr);
  EXPECT_TRUE(changed.ok()) << changed.status() << (*cluster)->Logs();
}

TEST_F(BadImagesTest, AModelWithoutATowerDrawsAndRefusesPictures) {
  const auto model = std::filesystem::temp_directory_path() / absl::StrCat("lancet_blind_", getpid());
  std::filesystem::create_directories(model);
  for (const char* part : {"Lance_3B", "Lance_3B-NVFP4", "Wan2.2_VAE.safetensors"}) {
    std::filesystem::create_symlink(std::filesystem::path(kNano) / part, model / part);
  }
  ClusterOptions options = NanoCluster(1);
  options.model_dir = model.string();
  auto cluster = Cluster::Start(std::move(options));
  std::filesystem::remove_all(model);  // it is read at start only
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  GenerationClient& client = (*cluster)->client();
  EventLog events;
  const auto code = absl::StatusCode::kFailedPrecondition;
  ExpectRefused(client.Describe(Question(GoodFile()), &events, nullptr).status(), code, "vision tower");
  ExpectRefused(client.Edit(Change(GoodFile()), &events, nullptr).status(), code, "vision tower");
  const auto drawn = client.Generate(MakeRequest("a cat", 2), &events, nullptr);
  EXPECT_TRUE(drawn.ok()) << drawn.status() << (*cluster)->Logs();
  const auto info = client.GetModelInfo(kClusterDeadline);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->tasks, std::vector<std::string>{"generate"});
}

}  // namespace
}  // namespace lancet

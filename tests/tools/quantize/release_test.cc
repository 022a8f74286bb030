// The files around the arithmetic: writing them, finding them, and what is left when something fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "common/checkpoint.h"
#include "common/sharded_state_dict.h"
#include "tests/tools/quantize/quantise_testing.h"
#include "tools/quantize/progress_bar.h"
#include "tools/quantize/release_folder.h"
#include "tools/quantize/source_files.h"
#include "tools/quantize/state_dict_writer.h"

namespace lancet {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(StateDictWriterTest, WritesWhatTheReaderReads) {
  const std::string path = FreshPath("x.safetensors");
  auto writer = StateDictWriter::Create(
      path, {{"b", DType::kU8, {3}}, {"a \"quoted\"", DType::kBf16, {2, 2}}, {"c", DType::kI64, {}}});
  ASSERT_THAT(writer, IsOk());
  EXPECT_EQ((*writer)->total_bytes(), 3u + 8 + 8);
  const std::vector<uint8_t> bytes = {1, 2, 3};
  const std::vector<bf16> values = {ToBf16(1), ToBf16(2), ToBf16(3), ToBf16(4)};
  const std::vector<int64_t> number = {-5};
  EXPECT_THAT((*writer)->Write("b", absl::MakeConstSpan(bytes)), IsOk());
  EXPECT_THAT((*writer)->Write("c", absl::MakeConstSpan(number)), IsOk());
  EXPECT_THAT((*writer)->Finish(),
              Fails(absl::StatusCode::kFailedPrecondition, HasSubstr("11 of 19 bytes were written")));
  // By pieces, the last first.
  const auto* from = reinterpret_cast<const std::byte*>(values.data());
  EXPECT_THAT((*writer)->Write("a \"quoted\"", 4, absl::MakeConstSpan(from + 4, 4)), IsOk());
  EXPECT_THAT((*writer)->Write("a \"quoted\"", 0, absl::MakeConstSpan(from, 4)), IsOk());
  EXPECT_THAT((*writer)->Write("a \"quoted\"", 6, absl::MakeConstSpan(from, 4)),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("no room for 4 bytes at 6")));
  EXPECT_THAT((*writer)->Write("d", absl::MakeConstSpan(bytes)),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("'d'")));
  EXPECT_THAT((*writer)->Finish(), IsOk());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->names().size(), 3u);
  EXPECT_EQ(std::memcmp((*file)->Get("a \"quoted\"").value().data, values.data(), 8), 0);
  EXPECT_EQ((*file)->Get("c").value().as<int64_t>()[0], -5);
  EXPECT_EQ((*file)->Get("b").value().as<uint8_t>()[2], 3);
  EXPECT_THAT(StateDictWriter::Create(path, {}), Fails(absl::StatusCode::kAlreadyExists, HasSubstr(path)));
}

TEST(StateDictWriterTest, WritesAnEmptyFile) {
  const std::string path = FreshPath("x.safetensors");
  auto writer = StateDictWriter::Create(path, {});
  ASSERT_THAT(writer, IsOk());
  EXPECT_THAT((*writer)->Finish(), IsOk());
  EXPECT_THAT(SafetensorsFile::Open(path), IsOk());
  EXPECT_THAT(StateDictWriter::Create(FreshPath("y"), {{"a", DType::kU8, {1}}, {"a", DType::kU8, {1}}}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("twice")));
}

TEST(ShardedStateDictTest, SaysWhatIsWrongWithAnIndex) {
  const std::string path = FreshPath("model.safetensors.index.json");
  const std::string folder = fs::path(path).parent_path().string();
  const TestTensor tensor = {"F32", {1}, std::string(4, '\0')};
  WriteFile(folder + "/1.safetensors", SerializeTensors({{"a", tensor}, {"b", tensor}}));
  WriteFile(folder + "/2.safetensors", SerializeTensors({{"c", tensor}}));
  const auto open = [&](absl::string_view text) {
    WriteFile(path, text);
    return OpenSourceStateDict(path).status();
  };
  EXPECT_THAT(open(R"({"weight_map": {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}})"),
              IsOk());
  EXPECT_THAT(open(R"({"weight_map": {"a": "1.safetensors", "c": "2.safetensors"}})"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("does not give tensor 'b'")));
  EXPECT_THAT(open(R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}})"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("which lacks it")));
  EXPECT_THAT(open(R"({"weight_map": {"a": "3.safetensors"}})"),
              Fails(absl::StatusCode::kNotFound, HasSubstr("3.safetensors")));
  for (const char* file : {"\"../1.safetensors\"", "\"/etc/passwd\"", "\"..\"", "\"\"", "7"}) {
    EXPECT_THAT(open(absl::StrCat("{\"weight_map\": {\"a\": ", file, "}}")),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("without a folder")))
        << file;
  }
  for (const char* text : {"[]", "{}", "{\"weight_map\": []}"}) {
    EXPECT_THAT(open(text), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("weight_map"))) << text;
  }
}

// A download of the micro model with the companions of the nano one.
class ReleaseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(download_);
    fs::copy(MicroPath("Lance_3B"), download_ + "/Lance_3B");
    const std::string nano = LANCET_TEST_DATA "/nano";
    for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json"}) {
      fs::copy(nano + "/Lance_3B/" + name, download_ + "/Lance_3B/" + name);
    }
    fs::copy(nano + "/Wan2.2_VAE.safetensors", download_ + "/Wan2.2_VAE.safetensors");
  }
  absl::Status MakeRelease(bool publish) {
    const auto files = FindSource(download_, "");
    if (!files.ok()) return files.status();
    const auto release = ReleaseFolder::Create(output_);
    if (!release.ok()) return release.status();
    const auto source = OpenSourceStateDict(files->weights).value();
    ThreadPool pool(2);
    const QuantiseOptions options;
    const auto summary = WriteQuantised(*source, MicroConfig(), options, pool, (*release)->state_dict());
    if (!summary.ok()) return summary.status();
    const auto missing = (*release)->AddCompanions(*files);
    if (!missing.ok()) return missing.status();
    missing_ = *missing;
    return publish ? (*release)->Publish(MetaJson(*summary, options)) : absl::OkStatus();
  }

  const std::string download_ = FreshPath("download");
  const std::string output_ = FreshPath("made/here");
  std::vector<std::string> missing_;
};

TEST_F(ReleaseTest, IsWhatTheServerOpens) {
  ASSERT_THAT(MakeRelease(true), IsOk());
  EXPECT_THAT(missing_,
              ::testing::ElementsAre("Qwen2.5-VL-ViT/config.json", "Qwen2.5-VL-ViT/vit.safetensors"));
  CheckpointPaths overrides;
  overrides.model_dir = output_;
  const auto paths = ResolveCheckpoint(overrides);
  ASSERT_THAT(paths, IsOk());
  const auto checkpoint = Checkpoint::Open(*paths);
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ((*checkpoint)->trunk_meta().scale_factors.size(), 28u);
  EXPECT_EQ(fs::hard_link_count(output_ + "/Wan2.2_VAE.safetensors"), 2u);
  // Nothing else is left, and nothing is overwritten.
  int entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(output_)) ++entries;
  EXPECT_EQ(entries, 3);
  EXPECT_THAT(MakeRelease(true), Fails(absl::StatusCode::kAlreadyExists, HasSubstr("Lance_3B-NVFP4 exists")));
}

TEST_F(ReleaseTest, IsThereWholeOrNotAtAll) {
  ASSERT_THAT(MakeRelease(false), IsOk());
  EXPECT_FALSE(fs::exists(output_ + "/Lance_3B-NVFP4"));
  EXPECT_FALSE(fs::exists(output_ + "/.Lance_3B-NVFP4.partial"));
  // What a killed program left is no hindrance; one that still runs is.
  WriteFile(output_ + "/.Lance_3B-NVFP4.partial/nvfp4_state_dict.safetensors", "half");
  const auto running = ReleaseFolder::Create(output_);
  ASSERT_THAT(running, IsOk());
  EXPECT_FALSE(fs::exists((*running)->state_dict()));
  EXPECT_THAT(MakeRelease(true),
              Fails(absl::StatusCode::kFailedPrecondition, HasSubstr("another program writes there")));
}

TEST_F(ReleaseTest, FindsSources) {
  EXPECT_EQ(FindSource(download_ + "/Lance_3B", "").value().weights,
            download_ + "/Lance_3B/model.safetensors");
  EXPECT_EQ(FindSource(download_ + "/Lance_3B/model.safetensors", "").value().llm_config,
            download_ + "/Lance_3B/llm_config.json");
  EXPECT_THAT(FindSource(output_, ""),
              Fails(absl::StatusCode::kNotFound, HasSubstr("/Lance_3B/model.safetensors.index.json")));
  EXPECT_THAT(FindSource(download_, "/no/such.json"),
              Fails(absl::StatusCode::kNotFound, HasSubstr("/no/such.json not found")));
}

TEST(ProgressBarTest, DrawsShares) {
  EXPECT_EQ(ProgressBar::Text(1'500'000'000, 3'000'000'000),
            "[###############               ]  50 %  1.50 of 3.00 GB");
  EXPECT_EQ(ProgressBar::Text(0, 0).substr(33, 5), "100 %");
  std::FILE* const file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  ProgressBar bar(file, false);
  for (uint64_t done = 0; done <= 1000; ++done) bar.Update(done, 1000, absl::UnixEpoch());
  std::rewind(file);
  int lines = 0;
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) lines += c == '\n';
  std::fclose(file);
  EXPECT_EQ(lines, 10);
}

}  // namespace
}  // namespace lancet

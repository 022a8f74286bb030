// Checkpoints that must not be loaded: both programs say what is wrong, by name, and exit.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/integration/process.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;  // keeps the order of tensors

constexpr absl::Duration kDeadline = absl::Seconds(60);
constexpr char kCoordinator[] = LANCET_BIN_DIR "/lancet-coordinator";
constexpr char kWorker[] = LANCET_BIN_DIR "/lancet-worker";

// A safetensors file: 8 bytes of header length, the header, the data.
struct Safetensors {
  std::string header;
  std::string data;
};

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteFile(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string LengthBytes(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
  return bytes;
}

Safetensors Split(const std::string& bytes) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(bytes[i]);
  return {bytes.substr(8, length), bytes.substr(8 + length)};
}

std::string Join(const Safetensors& file) {
  return LengthBytes(file.header.size()) + file.header + file.data;
}

// The name of the first tensor for which `wanted` holds.
std::string FindTensor(const Json& header,
                       const std::function<bool(const std::string&, const Json&)>& wanted) {
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__" && wanted(name, entry)) return name;
  }
  ADD_FAILURE() << "the model has no such tensor";
  return "";
}

// A model folder that is nano's by links, with one file to be replaced.
class BadCheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    dir_ = std::filesystem::temp_directory_path() / absl::StrCat("lancet_bad_", info->name(), "_", getpid());
    std::filesystem::create_directories(dir_ / "Lance_3B-NVFP4");
    std::filesystem::create_directory_symlink(nano_ / "Lance_3B", dir_ / "Lance_3B");
    std::filesystem::create_symlink(nano_ / "Wan2.2_VAE.safetensors", dir_ / "Wan2.2_VAE.safetensors");
    for (const auto& file : std::filesystem::directory_iterator(nano_ / "Lance_3B-NVFP4")) {
      std::filesystem::create_symlink(file.path(), dir_ / "Lance_3B-NVFP4" / file.path().filename());
    }
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  Safetensors Trunk() const { return Split(ReadFile(nano_ / kTrunk)); }
  void ReplaceTrunk(const std::string& bytes) {
    std::filesystem::remove(dir_ / kTrunk);
    WriteFile(dir_ / kTrunk, bytes);
  }

  // Both programs exit with an error that holds `culprit`. Neither gets as far as a port.
  void ExpectRefused(const std::string& culprit) {
    const std::string model = "--model_dir=" + dir_.string();
    const std::vector<std::string> programs[] = {
        {kCoordinator, model, "--listen=127.0.0.1:0", "--worker_listen=127.0.0.1:0"},
        {kWorker, model, "--coordinator=127.0.0.1:1"}};
    for (const std::vector<std::string>& arguments : programs) {
      const auto process = Process::Start(arguments, (dir_ / "log").string());
      ASSERT_TRUE(process.ok()) << process.status();
      const auto end = (*process)->AwaitEnd(kDeadline);
      ASSERT_TRUE(end.has_value()) << arguments[0] << " still runs\n" << (*process)->Log();
      EXPECT_NE(end->exit_code.value_or(0), 0) << arguments[0] << "\n" << (*process)->Log();
      EXPECT_THAT((*process)->Log(), HasSubstr(culprit)) << arguments[0];
      std::filesystem::remove(dir_ / "log");
    }
  }

  static constexpr char kTrunk[] = "Lance_3B-NVFP4/nvfp4_state_dict.safetensors";
  const std::filesystem::path nano_ = LANCET_TEST_DATA "/nano";
  std::filesystem::path dir_;
};

TEST_F(BadCheckpointTest, TruncatedData) {
  Safetensors trunk = Trunk();
  trunk.data.resize(trunk.data.size() - 100);
  ReplaceTrunk(Join(trunk));
  ExpectRefused("nvfp4_state_dict.safetensors");
}

TEST_F(BadCheckpointTest, OverlappingOffsets) {
  Safetensors trunk = Trunk();
  Json header = Json::parse(trunk.header);
  // Two tensors of one shape and type: the second is told to lie where the first does.
  std::string first;
  const std::string second = FindTensor(header, [&](const std::string& name, const Json& entry) {
    first = FindTensor(header, [&](const std::string& other, const Json& candidate) {
      return other == name || (candidate["shape"] == entry["shape"] && candidate["dtype"] == entry["dtype"]);
    });
    return first != name;
  });
  header[second]["data_offsets"] = header[first]["data_offsets"];
  trunk.header = header.dump();
  ReplaceTrunk(Join(trunk));
  ExpectRefused("overlap");
}

TEST_F(BadCheckpointTest, DuplicateKeys) {
  Safetensors trunk = Trunk();
  const Json header = Json::parse(trunk.header);
  const std::string name = FindTensor(header, [](const std::string&, const Json&) { return true; });
  trunk.header = absl::StrCat("{\"", name, "\":", header[name].dump(), ",", trunk.header.substr(1));
  ReplaceTrunk(Join(trunk));
  ExpectRefused(name);
}

TEST_F(BadCheckpointTest, HugeHeader) {
  const Safetensors trunk = Trunk();
  ReplaceTrunk(LengthBytes(uint64_t{1} << 40) + trunk.header + trunk.data);
  ExpectRefused("header");
}

TEST_F(BadCheckpointTest, WrongDtype) {
  Safetensors trunk = Trunk();
  Json header = Json::parse(trunk.header);
  const std::string name = FindTensor(header, [](const std::string& tensor, const Json& entry) {
    return absl::StrContains(tensor, "scales_bf16") && entry["dtype"] == "BF16";
  });
  header[name]["dtype"] = "F16";  // of the same size, so that only the type is wrong
  trunk.header = header.dump();
  ReplaceTrunk(Join(trunk));
  ExpectRefused(name);
}

TEST_F(BadCheckpointTest, MissingTensor) {
  Safetensors trunk = Trunk();
  Json header = Json::parse(trunk.header);
  const std::string name = FindTensor(
      header, [](const std::string& tensor, const Json&) { return absl::StrContains(tensor, "q_norm"); });
  // Under another name, so that its bytes leave no hole.
  header["nobody_asked_for_this"] = header[name];
  header.erase(name);
  trunk.header = header.dump();
  ReplaceTrunk(Join(trunk));
  ExpectRefused(name);
}

TEST_F(BadCheckpointTest, PickleThatCallsAFunction) {
  std::filesystem::remove(dir_ / "Wan2.2_VAE.safetensors");
  std::filesystem::copy_file(LANCET_TEST_DATA "/pth/evil_global.pth", dir_ / "Wan2.2_VAE.pth");
  ExpectRefused("Wan2.2_VAE.pth");
}

TEST_F(BadCheckpointTest, MissingFile) {
  std::filesystem::remove(dir_ / "Wan2.2_VAE.safetensors");
  ExpectRefused("Wan2.2_VAE");
}

}  // namespace
}  // namespace lancet

// Damages small files at random, with fixed seeds, and reads what is left. Any outcome but a crash will do; a
// sanitizer build also sees every read outside of the file.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "common/mapped_file.h"
#include "common/safetensors.h"
#include "common/torch_zip.h"
#include "tests/testing/in_memory_file.h"
#include "tests/testing/tensor_file.h"
#include "tests/testing/torch_archive.h"

namespace lancet {
namespace {

constexpr int kRounds = 4000;

// Flips, inserts, removes or repeats a few bytes.
std::string Mutate(std::string bytes, std::mt19937& random) {
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  const size_t changes = 1 + below(4);
  for (size_t i = 0; i < changes && !bytes.empty(); ++i) {
    const size_t at = below(bytes.size());
    switch (below(6)) {
      case 0:
        bytes[at] = static_cast<char>(below(256));
        break;
      case 1:
        bytes[at] ^= static_cast<char>(1 << below(8));
        break;
      case 2:
        bytes.insert(at, 1, static_cast<char>(below(256)));
        break;
      case 3:
        bytes.erase(at, 1 + below(8));
        break;
      case 4:  // a number becomes huge
        bytes.replace(at, std::min<size_t>(4, bytes.size() - at), 4, '\xff');
        break;
      default:
        bytes.insert(at, bytes.substr(at, 1 + below(32)));
        break;
    }
  }
  return bytes;
}

// Touches every byte of every tensor.
size_t ReadAll(const StateDict& dict) {
  size_t sum = 0;
  for (const std::string& name : dict.names()) {
    const absl::StatusOr<TensorView> view = dict.Get(name);
    if (!view.ok()) continue;
    for (int64_t i = 0; i < view->num_bytes(); ++i) sum += static_cast<size_t>(view->data[i]);
  }
  return sum;
}

struct Outcome {
  int accepted = 0;
  int refused = 0;
};

Outcome MutateAndRead(const std::string& good, uint32_t seed,
                      const std::function<absl::StatusOr<size_t>(std::unique_ptr<InMemoryFile>)>& read) {
  std::mt19937 random(seed);
  Outcome outcome;
  for (int round = 0; round < kRounds; ++round) {
    const absl::StatusOr<size_t> sum = read(std::make_unique<InMemoryFile>(Mutate(good, random)));
    if (sum.ok()) {
      ++outcome.accepted;
    } else {
      ++outcome.refused;
      EXPECT_FALSE(sum.status().message().empty());
    }
  }
  return outcome;
}

absl::StatusOr<size_t> ReadSafetensors(std::unique_ptr<InMemoryFile> file) {
  const auto dict = SafetensorsFile::Create(std::move(file));
  if (!dict.ok()) return dict.status();
  return ReadAll(**dict);
}

absl::StatusOr<size_t> ReadTorchZip(std::unique_ptr<InMemoryFile> file) {
  const auto dict = TorchZipFile::Create(std::move(file), {.max_materialised_bytes = 1 << 20});
  if (!dict.ok()) return dict.status();
  return ReadAll(**dict);
}

TEST(FileMutationTest, SafetensorsReaderSurvives) {
  TensorFile tensors;
  tensors["model.weight"] = {"BF16", {4, 3}, std::string(24, 'w')};
  tensors["model.bias"] = {"F32", {3}, std::string(12, 'b')};
  tensors["codes"] = {"U8", {2, 2}, "code"};
  tensors["empty"] = {"F32", {0}, ""};
  const Outcome outcome = MutateAndRead(SerializeTensors(tensors), 1, ReadSafetensors);
  EXPECT_GT(outcome.refused, kRounds / 2);
  EXPECT_GT(outcome.accepted, 0);  // damage to data alone goes unseen
}

TEST(FileMutationTest, TorchReaderSurvives) {
  uint32_t seed = 2;
  for (const char* name : {"/pth/flat.pth", "/pth/deflated.pth", "/pth/nested.pth"}) {
    SCOPED_TRACE(name);
    const std::string good = ReadTextFile(std::string(LANCET_TEST_DATA) + name, 1 << 20).value();
    EXPECT_GT(MutateAndRead(good, seed++, ReadTorchZip).refused, kRounds / 2);
  }
}

// Inside an archive whose sums are right again, so that damage reaches the pickle interpreter.
TEST(FileMutationTest, PickleInterpreterSurvives) {
  const std::string storage = pickle::Storage("FloatStorage", "0", 6);
  const std::string good = pickle::StateDict({{"plain", pickle::Tensor(storage, 0, {2, 3}, {3, 1})},
                                              {"columns", pickle::Tensor(storage, 0, {3, 2}, {1, 3})}});
  std::mt19937 random(7);
  int accepted = 0;
  for (int round = 0; round < 5 * kRounds; ++round) {
    const std::string archive = ZipBytes({{.name = "a/data.pkl", .content = Mutate(good, random)},
                                          {.name = "a/data/0", .content = std::string(24, 'x')}});
    accepted += ReadTorchZip(std::make_unique<InMemoryFile>(archive)).ok();
  }
  EXPECT_LT(accepted, 5 * kRounds / 2);
  EXPECT_GT(accepted, 0);  // a changed letter of a name
}

}  // namespace
}  // namespace lancet

#include "common/pickle_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/torch_archive.h"

namespace lancet {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const absl::string_view kStart = pickle::kStart;

std::string OneTensor() {
  return pickle::Tensor(pickle::Storage("HalfStorage", "7", 30), 4, {2, 3}, {10, 1});
}

TEST(PickleReaderTest, ReadsTensors) {
  const auto tensors =
      ParsePickledStateDict(pickle::StateDict({{"w", OneTensor()}, {"v", OneTensor()}}), "p");
  ASSERT_THAT(tensors, IsOk());
  ASSERT_EQ(tensors->size(), 2u);
  const PickledTensor& tensor = tensors->front();
  EXPECT_EQ(tensor.name, "w");
  EXPECT_EQ(tensor.storage_key, "7");
  EXPECT_EQ(tensor.dtype, DType::kF16);
  EXPECT_EQ(tensor.storage_elements, 30);
  EXPECT_EQ(tensor.offset, 4);
  EXPECT_EQ(tensor.shape, (Shape{2, 3}));
  EXPECT_EQ(tensor.strides, (Shape{10, 1}));
}

TEST(PickleReaderTest, ReadsPlainDictsParametersAndLongNumbers) {
  const std::string parameter =
      absl::StrCat("ctorch._utils\n_rebuild_parameter\n(", OneTensor(), "\x88", pickle::kOrderedDict, "tR");
  const std::string large =
      pickle::Tensor(pickle::Storage("ByteStorage", "1", int64_t{1} << 40), int64_t{1} << 39, {1}, {1});
  const std::string text =
      absl::StrCat(kStart, "}", pickle::Text("p"), parameter, "s", pickle::Text("l"), large, "s.");
  const auto tensors = ParsePickledStateDict(text, "p");
  ASSERT_THAT(tensors, IsOk());
  ASSERT_EQ(tensors->size(), 2u);
  EXPECT_EQ((*tensors)[0].dtype, DType::kF16);
  EXPECT_EQ((*tensors)[1].storage_elements, int64_t{1} << 40);
  EXPECT_EQ((*tensors)[1].offset, int64_t{1} << 39);
}

TEST(PickleReaderTest, AcceptsAnEmptyDict) {
  EXPECT_TRUE(ParsePickledStateDict(absl::StrCat(kStart, "}."), "p")->empty());
}

// Every opcode that is not needed, the dangerous ones among them, is refused by number.
TEST(PickleReaderTest, RefusesEveryOtherOpcode) {
  const absl::string_view known = ".cqrhj()t}suXKMJNQRb\x80\x85\x86\x87\x8a\x88\x89";
  int refused = 0;
  for (int op = 0; op < 256; ++op) {
    if (known.find(static_cast<char>(op)) != absl::string_view::npos) continue;
    const std::string text = absl::StrCat(kStart, std::string(1, static_cast<char>(op)), "os\nsystem\n.");
    EXPECT_THAT(
        ParsePickledStateDict(text, "p"),
        Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("uses opcode 0x"), HasSubstr("byte 2"))));
    ++refused;
  }
  EXPECT_EQ(refused, 229);
}

TEST(PickleReaderTest, RefusesEveryOtherGlobal) {
  for (const char* global :
       {"os\nsystem", "builtins\neval", "__builtin__\nexec", "torch\nload", "torch.storage\n_load_from_bytes",
        "collections\nCounter", "torch._utils\n_rebuild_tensor", "numpy\nndarray", "\n",
        "torch\nUntypedStorage", "torch._utils\n_rebuild_sparse_tensor"}) {
    EXPECT_THAT(ParsePickledStateDict(absl::StrCat(kStart, "c", global, "\n)R."), "p"),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("pickle asks for '")))
        << global;
  }
}

TEST(PickleReaderTest, RefusesMalformedPickles) {
  const std::string storage = pickle::Storage("FloatStorage", "0", 6);
  const auto dict_of = [](const std::string& value) { return pickle::StateDict({{"w", value}}); };
  const auto rebuild = [](const std::string& arguments) {
    return absl::StrCat("ctorch._utils\n_rebuild_tensor_v2\n", arguments, "R");
  };
  const std::string hooks = absl::StrCat("\x89", pickle::kOrderedDict);
  const struct {
    const char* what;
    std::string text;
    const char* message;
  } kCases[] = {
      {"nothing", "", "ends in the middle"},
      {"no stop", absl::StrCat(kStart, "}"), "ends in the middle"},
      {"protocol 4", std::string("\x80\x04}.", 4), "protocol 4"},
      {"long text", absl::StrCat(kStart, "X", std::string(4, '\xff')), "ends in the middle"},
      {"endless global", absl::StrCat(kStart, "ctorch"), "ends in the middle"},
      {"no dict", absl::StrCat(kStart, "K\x05."), "does not hold a dict"},
      {"empty stack", absl::StrCat(kStart, "."), "does not hold a dict"},
      {"two values", absl::StrCat(kStart, "}}."), "does not hold a dict"},
      {"pop from nothing", absl::StrCat(kStart, "R"), "takes a value where none is"},
      {"tuple from nothing", absl::StrCat(kStart, "\x86"), "takes a value where none is"},
      {"tuple over a mark", absl::StrCat(kStart, "(N\x86"), "takes a value where none is"},
      {"no mark", absl::StrCat(kStart, "Nt"), "mark that is not there"},
      {"remember nothing", absl::StrCat(kStart, absl::string_view("q\0", 2)), "remembers a value"},
      {"recall the unknown", absl::StrCat(kStart, absl::string_view("h\7", 2)), "recalls value 7"},
      {"call text", absl::StrCat(kStart, pickle::Text("x"), ")R"), "something to call"},
      {"call with text", absl::StrCat(kStart, "ccollections\nOrderedDict\n", pickle::Text("x"), "R"),
       "tuple of arguments"},
      {"OrderedDict of a list", absl::StrCat(kStart, "ccollections\nOrderedDict\n(Nt", "R."),
       "OrderedDict from arguments"},
      {"call a storage type", absl::StrCat(kStart, "ctorch\nFloatStorage\n)R"), "something to call"},
      {"set on a number", absl::StrCat(kStart, "K\5NNs"), "where a dict belongs"},
      {"set many on a number", absl::StrCat(kStart, "K\5(NNu"), "where a dict belongs"},
      {"set many on nothing", absl::StrCat(kStart, "(NNu"), "where a dict belongs"},
      {"key without value", absl::StrCat(kStart, "}(Nu"), "a key without a value"},
      {"state of a number", absl::StrCat(kStart, "K\5Nb"), "sets the state"},
      {"number as key", absl::StrCat(kStart, "}K\5", OneTensor(), "s."), "a key that is not text"},
      {"number as value", dict_of("K\5"), "something other than a tensor under 'w'"},
      {"dict as value", dict_of("}"), "holds a dict under 'w'"},
      {"name twice", pickle::StateDict({{"w", OneTensor()}, {"w", OneTensor()}}), "holds 'w' twice"},
      {"long of 9 bytes", absl::StrCat(kStart, "\x8a\x09", std::string(9, '\1'), "."), "more than 64 bits"},
      {"id is text", absl::StrCat(kStart, pickle::Text("storage"), "Q"), "description of a storage"},
      {"id too short", absl::StrCat(kStart, "(", pickle::Text("storage"), "tQ"), "not a storage"},
      {"id of a module",
       absl::StrCat(kStart, "(", pickle::Text("module"), "ctorch\nFloatStorage\n", pickle::Text("0"),
                    pickle::Text("cpu"), "K\5tQ"),
       "not a storage"},
      {"negative storage", dict_of(pickle::Tensor(pickle::Storage("FloatStorage", "0", -1), 0, {1}, {1})),
       "not a storage"},
      {"too few arguments", dict_of(rebuild("(Nt")), "too few or too many"},
      {"no storage", dict_of(rebuild(absl::StrCat("(NK\1))", hooks, "t"))), "not a storage"},
      {"negative offset", dict_of(pickle::Tensor(storage, -1, {1}, {1})), "offset is not a number"},
      {"offset is text", dict_of(rebuild(absl::StrCat("(", storage, pickle::Text("0"), "))", hooks, "t"))),
       "offset is not a number"},
      {"shape is a number", dict_of(rebuild(absl::StrCat("(", storage, "K\1K\1)", hooks, "t"))),
       "shape is not a tuple"},
      {"negative extent", dict_of(pickle::Tensor(storage, 0, {-1}, {1})), "numbers >= 0"},
      {"negative stride", dict_of(pickle::Tensor(storage, 5, {2}, {-1})), "numbers >= 0"},
      {"stride missing", dict_of(pickle::Tensor(storage, 0, {2, 3}, {1})), "a stride too few"},
      {"nine dimensions",
       dict_of(pickle::Tensor(storage, 0, std::vector<int64_t>(9, 1), std::vector<int64_t>(9, 1))),
       "9 dimensions"},
      {"past the end", dict_of(pickle::Tensor(storage, 1, {2, 3}, {3, 1})),
       "reaches element 6 of a storage of 6"},
      {"offset past the end", dict_of(pickle::Tensor(storage, 6, {}, {})),
       "reaches element 6 of a storage of 6"},
      {"stride past the end", dict_of(pickle::Tensor(storage, 0, {2}, {6})), "reaches element 6"},
      {"overflowing size", dict_of(pickle::Tensor(storage, 0, {int64_t{1} << 40, int64_t{1} << 40}, {0, 0})),
       "too large"},
      {"overflowing stride", dict_of(pickle::Tensor(storage, 0, {3}, {INT64_MAX})), "too large"},
      {"overflowing offset", dict_of(pickle::Tensor(storage, INT64_MAX, {2}, {1})), "too large"},
      {"metadata", dict_of(rebuild(absl::StrCat("(", storage, pickle::Int(0), "))", hooks, "}t"))),
       "with metadata"},
      {"parameter of a number",
       dict_of(absl::StrCat("ctorch._utils\n_rebuild_parameter\n(K\1\x88", pickle::kOrderedDict, "tR")),
       "rebuilds a parameter"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(
        ParsePickledStateDict(c.text, "p"),
        Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("p: pickle "), HasSubstr(c.message))))
        << c.what;
  }
}

// An empty tensor reaches no element, wherever it starts.
TEST(PickleReaderTest, AcceptsEmptyTensors) {
  const std::string storage = pickle::Storage("FloatStorage", "0", 0);
  EXPECT_THAT(
      ParsePickledStateDict(pickle::StateDict({{"w", pickle::Tensor(storage, 0, {0, 3}, {3, 1})}}), "p"),
      IsOk());
}

// Values that contain values are no recursion, and what a pickle can allocate is bounded.
TEST(PickleReaderTest, SurvivesDeepAndManyValues) {
  EXPECT_THAT(ParsePickledStateDict(absl::StrCat(kStart, "N", std::string(1 << 19, '\x85'), "."), "p"),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("does not hold a dict")));
  for (const char* repeated : {"N", "}", "(", ")", "K\1"}) {
    std::string text(kStart);
    for (int i = 0; i < (1 << 21) + 2; ++i) text += repeated;
    EXPECT_THAT(ParsePickledStateDict(text, "p"),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("more than 2097152 values")))
        << repeated;
  }
}

}  // namespace
}  // namespace lancet

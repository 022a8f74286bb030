#include "common/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "common/safetensors.h"
#include "common/trunk_layout.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tensor_file.h"
#include "tests/testing/torch_archive.h"

namespace lancet {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

namespace fs = std::filesystem;

constexpr char kNano[] = LANCET_TEST_DATA "/nano";
constexpr char kTrunkName[] = "/nvfp4_state_dict.safetensors";

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenDir(const std::string& dir) {
  CheckpointPaths overrides;
  overrides.model_dir = dir;
  const auto paths = ResolveCheckpoint(overrides);
  if (!paths.ok()) return paths.status();
  return Checkpoint::Open(*paths);
}

std::string ReadFile(const std::string& path) { return ReadTextFile(path, size_t{1} << 30).value(); }

TEST(CheckpointTest, OpensTheBundledCheckpoints) {
  const auto nano = OpenDir(kNano);
  ASSERT_THAT(nano, IsOk());
  EXPECT_EQ((*nano)->config().intermediate_size, 176);
  EXPECT_EQ((*nano)->trunk().names().size(), TrunkTensors((*nano)->config()).size());
  EXPECT_EQ((*nano)->card().name, "Lance_3B-NVFP4");
  EXPECT_FALSE((*nano)->vae_layout().image_only);
  EXPECT_TRUE((*nano)->vae_layout().has_encoder);
  EXPECT_EQ((*nano)->fingerprint().size(), 32u);
  ASSERT_NE((*nano)->vision(), nullptr);
  EXPECT_EQ((*nano)->vision()->names().size(), 30u);
  EXPECT_EQ((*nano)->vision_config()->num_heads, 2);

  const auto demo = OpenDir(LANCET_DEMO_MODEL);
  ASSERT_THAT(demo, IsOk());
  EXPECT_EQ((*demo)->card().name, "emoji-scenes");
  EXPECT_TRUE((*demo)->vae_layout().image_only);
  EXPECT_NE((*demo)->fingerprint(), (*nano)->fingerprint());
}

TEST(TrunkLayoutTest, CountsTheReleasesTensors) {
  ModelConfig config;
  config.hidden_size = 2048;
  config.num_layers = 36;
  config.num_heads = 16;
  config.num_kv_heads = 2;
  config.head_dim = 128;
  config.intermediate_size = 11008;
  config.vocab_size = 151936;
  EXPECT_EQ(TrunkLinears(config).size(), 504u);
  const std::vector<TrunkTensor> tensors = TrunkTensors(config);
  // The release's 2029 less latent_pos_embed, which is recomputed; likewise its bytes.
  EXPECT_EQ(tensors.size(), 2028u);
  int64_t bytes = 0;
  for (const TrunkTensor& tensor : tensors) {
    bytes += NumElements(tensor.shape) * static_cast<int64_t>(DTypeSize(tensor.dtype));
  }
  EXPECT_EQ(bytes, 5'087'264'864 - 4096 * 2048 * 2);
}

// A copy of the nano checkpoint that tests may damage, in the layout of a download.
class ChangedCheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = absl::StrCat(::testing::TempDir(), "/checkpoint_test/", info->name());
    fs::remove_all(dir_);
    for (const char* file : {"/Lance_3B/llm_config.json", "/Lance_3B/vocab.json", "/Lance_3B/merges.txt",
                             "/Lance_3B/tokenizer_config.json", "/Qwen2.5-VL-ViT/config.json",
                             "/Qwen2.5-VL-ViT/vit.safetensors"}) {
      WriteFile(dir_ + file, ReadFile(absl::StrCat(kNano, file)));
    }
    meta_text_ = ReadFile(absl::StrCat(kNano, "/Lance_3B-NVFP4/nvfp4_meta.json"));
    trunk_ = CopyTensors(*SafetensorsFile::Open(absl::StrCat(kNano, "/Lance_3B-NVFP4", kTrunkName)).value());
    vae_ = CopyTensors(*SafetensorsFile::Open(absl::StrCat(kNano, "/Wan2.2_VAE.safetensors")).value());
    WriteTrunk(trunk_);
    WriteMeta(meta_text_);
    WriteVae(vae_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  void WriteTrunk(const TensorFile& trunk) {
    WriteFile(absl::StrCat(dir_, "/Lance_3B-NVFP4", kTrunkName), SerializeTensors(trunk));
  }
  void WriteMeta(absl::string_view text) {
    WriteFile(absl::StrCat(dir_, "/Lance_3B-NVFP4/nvfp4_meta.json"), text);
  }
  void WriteVae(const TensorFile& vae) {
    WriteFile(absl::StrCat(dir_, "/Wan2.2_VAE.safetensors"), SerializeTensors(vae));
  }
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open() { return OpenDir(dir_); }

  std::string dir_;
  std::string meta_text_;
  TensorFile trunk_;
  TensorFile vae_;
};

const char kQ[] = "language_model.model.layers.0.self_attn.q_proj";
const char kDown[] = "language_model.model.layers.1.mlp_moe_gen.down_proj";

TEST_F(ChangedCheckpointTest, OpensTheCopy) {
  const auto original = OpenDir(kNano);
  const auto copy = Open();
  ASSERT_THAT(copy, IsOk());
  EXPECT_EQ((*copy)->fingerprint(), (*original)->fingerprint());
}

TEST_F(ChangedCheckpointTest, DrawsWithoutATower) {
  const std::string with = Open().value()->fingerprint();
  fs::remove_all(dir_ + "/Qwen2.5-VL-ViT");
  const auto checkpoint = Open();
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ((*checkpoint)->vision(), nullptr);
  EXPECT_FALSE((*checkpoint)->vision_config().has_value());
  EXPECT_NE((*checkpoint)->fingerprint(), with);
}

TEST_F(ChangedCheckpointTest, TakesTheTowerFromTheTrunkFile) {
  const std::string file = dir_ + "/Qwen2.5-VL-ViT/vit.safetensors";
  const std::string before = Open().value()->fingerprint();
  const TensorFile tower = CopyTensors(*SafetensorsFile::Open(file).value());
  // One tensor there wins over the tower's own file.
  const std::string name = "blocks.1.norm2.weight";
  TensorFile trunk = trunk_;
  TestTensor& changed = trunk[absl::StrCat("vit_model.", name)] = tower.at(name);
  changed.data[0] = static_cast<char>(changed.data[0] ^ 1);
  WriteTrunk(trunk);
  auto checkpoint = Open();
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ((*checkpoint)->vision()->tensors_in_trunk(), 1);
  EXPECT_EQ(CopyTensors(*(*checkpoint)->vision()).at(name).data, changed.data);
  EXPECT_EQ((*checkpoint)->vision()->names().size(), tower.size());
  EXPECT_NE((*checkpoint)->fingerprint(), before);
  // All of them there: no file is needed, but its config is.
  for (const auto& [tensor, value] : tower) trunk[absl::StrCat("vit_model.", tensor)] = value;
  WriteTrunk(trunk);
  fs::remove(file);
  checkpoint = Open();
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ((*checkpoint)->vision()->names().size(), tower.size());
  trunk.erase("vit_model.merger.ln_q.weight");
  WriteTrunk(trunk);
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument,
                            HasSubstr("tensor 'merger.ln_q.weight' of the vision tower is missing")));
  trunk["vit_model.merger.ln_q.weight"] = tower.at("merger.mlp.0.bias");
  WriteTrunk(trunk);
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument,
                            HasSubstr("tensor 'merger.ln_q.weight' of the vision tower has shape [640]")));
}

TEST_F(ChangedCheckpointTest, TheTowerFitsTheTrunk) {
  const std::string path = dir_ + "/Qwen2.5-VL-ViT/config.json";
  const std::string before = Open().value()->fingerprint();
  json config = json::parse(ReadFile(path));
  WriteFile(path, config.dump());
  EXPECT_NE(Open().value()->fingerprint(), before) << "its config counts";
  config["out_hidden_size"] = 528;
  WriteFile(path, config.dump());
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument,
                            AllOf(HasSubstr("config.json: out_hidden_size is 528"), HasSubstr("512"))));
  fs::remove(path);
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kNotFound, HasSubstr("--vit_config")));
}

TEST_F(ChangedCheckpointTest, FindsTheTowerByItsFlags) {
  const std::string elsewhere = dir_ + "/elsewhere";
  fs::rename(dir_ + "/Qwen2.5-VL-ViT", elsewhere);
  CheckpointPaths overrides;
  overrides.model_dir = dir_;
  overrides.vit = elsewhere + "/vit.safetensors";
  EXPECT_EQ(ResolveCheckpoint(overrides)->vit_config, elsewhere + "/config.json");
  overrides.vit.clear();
  overrides.vit_config = elsewhere + "/config.json";
  EXPECT_EQ(ResolveCheckpoint(overrides)->vit, elsewhere + "/vit.safetensors");
}

TEST_F(ChangedCheckpointTest, NamesTheOddTrunkTensor) {
  const struct {
    const char* what;
    std::function<void(TensorFile&)> change;
    std::string name;
    const char* message;
  } kCases[] = {
      {"codes of another type", [](TensorFile& t) { t[absl::StrCat(kQ, ".qweight")].dtype = "I8"; },
       absl::StrCat(kQ, ".qweight"), "is I8 [512, 256]; expected U8 [512, 256]"},
      {"norm as F16", [](TensorFile& t) { t["language_model.model.norm.weight"].dtype = "F16"; },
       "language_model.model.norm.weight", "is F16 [512]; expected BF16 [512]"},
      {"transposed",
       [](TensorFile& t) {
         t["vae2llm.weight"].shape = {48, 512};
       },
       "vae2llm.weight", "is BF16 [48, 512]; expected BF16 [512, 48]"},
      {"one dimension more",
       [](TensorFile& t) {
         t[absl::StrCat(kQ, ".bias")].shape = {512, 1};
       },
       absl::StrCat(kQ, ".bias"), "is BF16 [512, 1]; expected BF16 [512]"},
      {"fewer rows",
       [](TensorFile& t) {
         TestTensor& head = t["language_model.lm_head.weight"];
         head.shape = {335, 512};
         head.data.resize(335 * 512 * 2);
       },
       "language_model.lm_head.weight", "[335, 512]; expected BF16 [336, 512]"},
      {"unquantised beside quantised",
       [](TensorFile& t) {
         t[absl::StrCat(kDown, ".weight")] = {"BF16", {512, 176}, std::string(512 * 176 * 2, '\0')};
       },
       absl::StrCat(kDown, ".weight"), "stands beside its quantised form"},
      {"a zero scale",
       [](TensorFile& t) { t[absl::StrCat(kDown, ".scales_bf16")].data.replace(100, 2, 2, '\0'); },
       absl::StrCat(kDown, ".scales_bf16"), "has 0 at [4, 6]"},
      {"a negative scale", [](TensorFile& t) { t[absl::StrCat(kDown, ".scales_bf16")].data[101] |= '\x80'; },
       absl::StrCat(kDown, ".scales_bf16"), "at [4, 6]; scales are finite and positive"},
      {"an infinite scale",
       [](TensorFile& t) { t[absl::StrCat(kQ, ".scales_bf16")].data.replace(0, 2, "\x80\x7f"); },
       absl::StrCat(kQ, ".scales_bf16"), "has inf at [0, 0]"},
      {"a scale that is not a number",
       [](TensorFile& t) {
         std::string& data = t[absl::StrCat(kQ, ".scales_bf16")].data;
         data.replace(data.size() - 2, 2, "\xff\x7f");
       },
       absl::StrCat(kQ, ".scales_bf16"), "has nan at [511, 31]"},
  };
  for (const auto& c : kCases) {
    TensorFile trunk = trunk_;
    c.change(trunk);
    WriteTrunk(trunk);
    EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument,
                              AllOf(HasSubstr(kTrunkName), HasSubstr(absl::StrCat("'", c.name, "'")),
                                    HasSubstr(c.message))))
        << c.what;
  }
}

TEST_F(ChangedCheckpointTest, RefusesCodesOfAnotherTable) {
  for (auto& [name, tensor] : trunk_) {
    if (!absl::EndsWith(name, ".qweight")) continue;
    for (char& byte : tensor.data) byte &= '\x33';  // magnitudes 0 to 3 only
  }
  WriteTrunk(trunk_);
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument,
                            HasSubstr("sampled blocks use the largest E2M1 code")));
}

// The same model before quantisation, of F32: found where a download has it, read as bf16.
TEST_F(ChangedCheckpointTest, TakesATrunkBeforeQuantisation) {
  const ModelConfig config = Open().value()->config();
  TensorFile source;
  for (const auto& [name, tensor] : trunk_) {
    if (tensor.dtype != "BF16" || absl::EndsWith(name, ".scales_bf16")) continue;
    TestTensor& wide = source[name] = {"F32", tensor.shape, ""};
    for (size_t i = 0; i < tensor.data.size(); i += 2)
      wide.data += std::string(2, '\0') + tensor.data.substr(i, 2);
  }
  for (const TrunkLinear& linear : TrunkLinears(config)) {
    const Shape shape = {linear.out, linear.in};
    source[linear.base + ".weight"] = {"F32", shape, std::string(NumElements(shape) * 4, '\0')};
  }
  fs::remove_all(dir_ + "/Lance_3B-NVFP4");
  WriteFile(dir_ + "/Lance_3B/model.safetensors", SerializeTensors(source));
  const auto checkpoint = Open();
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_TRUE(IsSource((*checkpoint)->trunk_file(), config));
  const std::string norm = "language_model.model.norm.weight";
  EXPECT_EQ((*checkpoint)->trunk_file().Get(norm)->dtype, DType::kF32);
  const TensorView rounded = (*checkpoint)->trunk().Get(norm).value();
  EXPECT_EQ(rounded.dtype, DType::kBf16);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(rounded.data), rounded.num_bytes()), trunk_[norm].data);
  EXPECT_EQ((*checkpoint)->trunk().Get(absl::StrCat(kQ, ".weight"))->dtype, DType::kBf16);

  source[norm].dtype = "I32";
  WriteFile(dir_ + "/Lance_3B/model.safetensors", SerializeTensors(source));
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument, HasSubstr(norm)));
}

TEST_F(ChangedCheckpointTest, TellsOtherKindsOfFiles) {
  TensorFile awq = trunk_;
  awq[absl::StrCat(kQ, ".zeros")] = awq[absl::StrCat(kQ, ".scales_fp8")];
  awq.erase(absl::StrCat(kQ, ".scales_fp8"));
  WriteTrunk(awq);
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("AWQ-INT4")));
  TensorFile plain = trunk_;
  plain[absl::StrCat(kQ, ".weight")] = {"BF16", {512, 512}, std::string(512 * 512 * 2, '\0')};
  plain[absl::StrCat(kQ, ".weight")].dtype = "F16";
  plain.erase(absl::StrCat(kQ, ".qweight"));
  WriteTrunk(plain);
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("not quantised")));
}

// A video checkpoint holds a vision tower and a position table of its own; neither is used for pictures.
TEST_F(ChangedCheckpointTest, ToleratesWhatItDoesNotRead) {
  trunk_["latent_pos_embed.pos_embed"] = {"BF16", {7, 512}, std::string(7 * 512 * 2, '\0')};
  trunk_["vit_model.blocks.2.attn.proj.bias"] = {"BF16", {4}, std::string(8, '\0')};
  trunk_["something.else"] = {"I64", {1}, std::string(8, '\0')};
  WriteTrunk(trunk_);
  EXPECT_THAT(Open(), IsOk());
}

TEST_F(ChangedCheckpointTest, RefusesSizesThatAreNotTheTensors) {
  json config = json::parse(ReadFile(dir_ + "/Lance_3B/llm_config.json"));
  config["intermediate_size"] = 192;
  WriteFile(dir_ + "/Lance_3B/llm_config.json", config.dump());
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument,
                            AllOf(HasSubstr("mlp"), HasSubstr("[176, 256]; expected U8 [192, 256]"))));
  config["intermediate_size"] = 176;
  config["num_hidden_layers"] = 3;
  WriteFile(dir_ + "/Lance_3B/llm_config.json", config.dump());
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument,
                            HasSubstr("layers.2.self_attn.q_proj.qweight' is missing")));
}

TEST_F(ChangedCheckpointTest, ChecksTheMetaFile) {
  const std::string entry = absl::StrCat("/per_weight/", kQ, ".weight");
  const struct {
    const char* what;
    std::function<void(json&)> change;
    const char* message;
  } kCases[] = {
      {"block size", [](json& m) { m["block_size"] = 32; }, "block_size is '32'; expected 16"},
      {"no block size", [](json& m) { m.erase("block_size"); }, "block_size is 'null'"},
      {"scheme", [](json& m) { m["scheme"] = "nvfp4_two_level"; }, "scheme is '\\\"nvfp4_two_level\\\"'"},
      {"code table", [](json& m) { m["fp4_lut_pos"][3] = 1.25; }, "fp4_lut_pos"},
      {"short code table",
       [](json& m) {
         m["fp4_lut_pos"] = {0, 0.5};
       },
       "fp4_lut_pos"},
      {"no weights", [](json& m) { m.erase("per_weight"); }, "per_weight is not an object"},
      {"weight missing", [](json& m) { m["per_weight"].erase(absl::StrCat(kDown, ".weight")); },
       "mlp_moe_gen.down_proj.weight'"},
      {"unknown weight", [](json& m) { m["per_weight"]["x.weight"] = json::object(); },
       "per_weight 'x.weight': is not a linear"},
      {"name without suffix", [](json& m) { m["per_weight"][kQ] = json::object(); }, "is not a linear"},
      {"weight is no object", [&](json& m) { m[json::json_pointer(entry)] = 3; }, "is not an object"},
      {"its shape",
       [&](json& m) {
         m[json::json_pointer(entry)]["shape"] = {512, 256};
       },
       "shape is '[512,256]'"},
      {"its block size", [&](json& m) { m[json::json_pointer(entry)]["block_size"] = 64; },
       "block_size is '64'"},
      {"its scheme", [&](json& m) { m[json::json_pointer(entry)]["scheme"] = "int4"; },
       "expected nvfp4_awq or nvfp4_minmax"},
  };
  for (const auto& c : kCases) {
    json meta = json::parse(meta_text_);
    c.change(meta);
    WriteMeta(meta.dump());
    EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument,
                              AllOf(HasSubstr("nvfp4_meta.json"), HasSubstr(c.message))))
        << c.what;
  }
  WriteMeta("{");
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("not valid JSON")));
  fs::remove(dir_ + "/Lance_3B-NVFP4/nvfp4_meta.json");
  EXPECT_THAT(Open(), IsOk()) << "names are complete without it";
}

// Keeps the last temporal tap of every kernel.
TensorFile ImageOnly(const TensorFile& full) {
  TensorFile result;
  for (const auto& [name, tensor] : full) {
    if (absl::StrContains(name, "time_conv")) continue;
    TestTensor copy = tensor;
    if (tensor.shape.size() == 5 && tensor.shape[2] == 3) {
      const size_t plane = static_cast<size_t>(tensor.shape[3] * tensor.shape[4]) * 2;
      copy.shape[2] = 1;
      copy.data.clear();
      for (size_t at = 0; at < tensor.data.size(); at += 3 * plane)
        copy.data += tensor.data.substr(at + 2 * plane, plane);
    }
    result[name] = copy;
  }
  return result;
}

TEST_F(ChangedCheckpointTest, TakesImageOnlyAndDecoderOnlyAutoencoders) {
  const TensorFile image_only = ImageOnly(vae_);
  WriteVae(image_only);
  auto checkpoint = Open();
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_TRUE((*checkpoint)->vae_layout().image_only);

  TensorFile decoder_only = image_only;
  std::erase_if(decoder_only, [](const auto& entry) {
    return absl::StartsWith(entry.first, "encoder.") || absl::StartsWith(entry.first, "conv1.");
  });
  WriteVae(decoder_only);
  checkpoint = Open();
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_FALSE((*checkpoint)->vae_layout().has_encoder);

  // One file is either, not a mixture.
  TensorFile mixed = image_only;
  const char* kTimeConv = "decoder.upsamples.0.upsamples.3.time_conv.weight";
  mixed[kTimeConv] = vae_[kTimeConv];
  WriteVae(mixed);
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument,
                            HasSubstr(absl::StrCat("'", kTimeConv, "' stands in a file"))));
  mixed = vae_;
  const char* kKernel = "decoder.middle.0.residual.2.weight";
  mixed[kKernel] = image_only.at(kKernel);
  WriteVae(mixed);
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument,
                            HasSubstr(absl::StrCat("'", kKernel, "' has shape"))));
}

// The stock file is a PyTorch archive.
TEST_F(ChangedCheckpointTest, ReadsTheAutoencoderFromAnArchive) {
  std::vector<TestZipMember> members(1);
  std::vector<std::pair<std::string, std::string>> entries;
  for (const auto& [name, tensor] : vae_) {
    const std::string key = absl::StrCat(entries.size());
    const int64_t elements = NumElements(tensor.shape);
    std::vector<int64_t> strides(tensor.shape.size(), 1);
    for (size_t d = strides.size(); d-- > 1;) strides[d - 1] = strides[d] * tensor.shape[d];
    entries.emplace_back(name, pickle::Tensor(pickle::Storage("BFloat16Storage", key, elements), 0,
                                              {tensor.shape.begin(), tensor.shape.end()}, strides));
    members.push_back({.name = absl::StrCat("Wan2.2_VAE/data/", key), .content = tensor.data});
  }
  members[0] = {.name = "Wan2.2_VAE/data.pkl", .content = pickle::StateDict(entries)};
  const auto safetensors = Open();
  ASSERT_THAT(safetensors, IsOk());
  fs::remove(dir_ + "/Wan2.2_VAE.safetensors");
  WriteFile(dir_ + "/Wan2.2_VAE.pth", ZipBytes(members));
  const auto archive = Open();
  ASSERT_THAT(archive, IsOk());
  EXPECT_TRUE(absl::EndsWith((*archive)->paths().vae, ".pth"));
  EXPECT_EQ((*archive)->fingerprint(), (*safetensors)->fingerprint());
  WriteFile(dir_ + "/Wan2.2_VAE.pth", ReadFile(LANCET_TEST_DATA "/pth/evil_reduce.pth"));
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("posix.system")));
}

TEST_F(ChangedCheckpointTest, RefusesDamagedFiles) {
  const std::string trunk_path = absl::StrCat(dir_, "/Lance_3B-NVFP4", kTrunkName);
  const std::string bytes = ReadFile(trunk_path);
  for (const size_t size : {size_t{0}, size_t{7}, size_t{4000}, bytes.size() - 1}) {
    WriteFile(trunk_path, absl::string_view(bytes).substr(0, size));
    EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument, HasSubstr(kTrunkName))) << size;
  }
  WriteFile(trunk_path, bytes + "x");
  EXPECT_THAT(Open(), Fails(absl::StatusCode::kInvalidArgument, HasSubstr("the tensors end at byte")));
}

TEST_F(ChangedCheckpointTest, FingerprintFollowsTheContent) {
  const std::string before = Open().value()->fingerprint();
  trunk_["llm2vae.bias"].data[0] ^= 1;
  WriteTrunk(trunk_);
  const std::string changed_data = Open().value()->fingerprint();
  EXPECT_NE(changed_data, before);
  trunk_["llm2vae.bias"].data[0] ^= 1;
  WriteTrunk(trunk_);
  EXPECT_EQ(Open().value()->fingerprint(), before);
  WriteFile(dir_ + "/Lance_3B/llm_config.json", ReadFile(dir_ + "/Lance_3B/llm_config.json") + "\n");
  EXPECT_NE(Open().value()->fingerprint(), before);
}

TEST_F(ChangedCheckpointTest, ResolvesEveryLayout) {
  CheckpointPaths overrides;
  overrides.model_dir = dir_;
  const CheckpointPaths download = ResolveCheckpoint(overrides).value();
  EXPECT_EQ(download.trunk, absl::StrCat(dir_, "/Lance_3B-NVFP4", kTrunkName));
  EXPECT_EQ(download.llm_config, dir_ + "/Lance_3B/llm_config.json");
  EXPECT_EQ(download.lancet_json, "");

  // A file beside the trunk wins over the base folder's.
  WriteFile(dir_ + "/Lance_3B-NVFP4/vocab.json", "{}");
  EXPECT_EQ(ResolveCheckpoint(overrides)->vocab, dir_ + "/Lance_3B-NVFP4/vocab.json");

  // Another folder name, as long as it is the only one.
  fs::rename(dir_ + "/Lance_3B-NVFP4", dir_ + "/my-quant");
  EXPECT_EQ(ResolveCheckpoint(overrides)->trunk, absl::StrCat(dir_, "/my-quant", kTrunkName));
  EXPECT_EQ(ResolveCheckpoint(overrides)->trunk_meta, dir_ + "/my-quant/nvfp4_meta.json");
  fs::copy(dir_ + "/my-quant", dir_ + "/other-quant");
  EXPECT_THAT(ResolveCheckpoint(overrides),
              Fails(absl::StatusCode::kInvalidArgument,
                    AllOf(HasSubstr("my-quant"), HasSubstr("other-quant"), HasSubstr("--trunk"))));
  overrides.trunk = absl::StrCat(dir_, "/other-quant", kTrunkName);
  EXPECT_EQ(ResolveCheckpoint(overrides)->trunk, overrides.trunk);

  // The video model's folders.
  fs::rename(dir_ + "/other-quant", dir_ + "/Lance_3B_Video-NVFP4");
  fs::copy(dir_ + "/Lance_3B", dir_ + "/Lance_3B_Video");
  overrides.trunk = absl::StrCat(dir_, "/Lance_3B_Video-NVFP4", kTrunkName);
  fs::remove(dir_ + "/Lance_3B_Video-NVFP4/vocab.json");
  EXPECT_EQ(ResolveCheckpoint(overrides)->vocab, dir_ + "/Lance_3B_Video/vocab.json");

  // All in one folder.
  overrides.trunk.clear();
  fs::rename(absl::StrCat(dir_, "/my-quant", kTrunkName), dir_ + kTrunkName);
  WriteFile(dir_ + "/lancet.json", "{}");
  EXPECT_EQ(ResolveCheckpoint(overrides)->trunk, dir_ + kTrunkName);
  EXPECT_EQ(ResolveCheckpoint(overrides)->trunk_meta, "");
  EXPECT_EQ(ResolveCheckpoint(overrides)->lancet_json, dir_ + "/lancet.json");
}

TEST_F(ChangedCheckpointTest, SaysWhereItLooked) {
  CheckpointPaths overrides;
  overrides.model_dir = dir_;
  fs::remove(dir_ + "/Lance_3B/merges.txt");
  EXPECT_THAT(ResolveCheckpoint(overrides),
              Fails(absl::StatusCode::kNotFound,
                    AllOf(HasSubstr("merges.txt (--merges) not found"), HasSubstr("/Lance_3B/merges.txt"))));
  overrides.merges = "elsewhere.txt";
  EXPECT_EQ(ResolveCheckpoint(overrides)->merges, "elsewhere.txt");
  fs::remove(dir_ + "/Wan2.2_VAE.safetensors");
  EXPECT_THAT(ResolveCheckpoint(overrides),
              Fails(absl::StatusCode::kNotFound, AllOf(HasSubstr("--vae"), HasSubstr("Wan2.2_VAE.pth"))));
  fs::remove_all(dir_ + "/Lance_3B-NVFP4");
  EXPECT_THAT(ResolveCheckpoint(overrides), Fails(absl::StatusCode::kNotFound, HasSubstr("--trunk")));
  overrides.model_dir = dir_ + "/absent";
  EXPECT_THAT(ResolveCheckpoint(overrides), Fails(absl::StatusCode::kNotFound, HasSubstr("is not a folder")));
  EXPECT_THAT(ResolveCheckpoint({}),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("--model_dir is not set")));
}

}  // namespace
}  // namespace lancet

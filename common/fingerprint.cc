#include "common/fingerprint.h"

#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr int64_t kSampleBytes = 256;
constexpr size_t kFingerprintBytes = 16;

// SHA-256, fed field by field. Every field is preceded by its length, so that two different sequences of
// fields never feed the same bytes.
class Hasher {
 public:
  Hasher() : ctx_(EVP_MD_CTX_new()) {
    ok_ = ctx_ != nullptr && EVP_DigestInit_ex(ctx_.get(), EVP_sha256(), nullptr) == 1;
  }

  void Add(absl::string_view bytes) {
    AddNumber(static_cast<int64_t>(bytes.size()));
    Update(bytes.data(), bytes.size());
  }
  void AddNumber(int64_t number) {
    std::array<unsigned char, 8> bytes;
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(number >> (8 * i));
    Update(bytes.data(), bytes.size());
  }

  absl::StatusOr<std::string> Finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
    unsigned int size = 0;
    ok_ = ok_ && EVP_DigestFinal_ex(ctx_.get(), digest.data(), &size) == 1 && size >= kFingerprintBytes;
    if (!ok_) return absl::InternalError("SHA-256 failed");
    return absl::BytesToHexString(
        absl::string_view(reinterpret_cast<const char*>(digest.data()), kFingerprintBytes));
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* ctx) const { EVP_MD_CTX_free(ctx); }
  };

  void Update(const void* data, size_t size) { ok_ = ok_ && EVP_DigestUpdate(ctx_.get(), data, size) == 1; }

  std::unique_ptr<EVP_MD_CTX, Free> ctx_;
  bool ok_ = false;
};

void AddSamples(const TensorView& tensor, Hasher& hasher) {
  const char* data = reinterpret_cast<const char*>(tensor.data);
  const int64_t size = tensor.num_bytes();
  if (size <= 3 * kSampleBytes) {
    hasher.Add({data, static_cast<size_t>(size)});
    return;
  }
  for (const int64_t begin : {int64_t{0}, (size - kSampleBytes) / 2, size - kSampleBytes}) {
    hasher.Add({data + begin, kSampleBytes});
  }
}

absl::Status AddStateDict(const StateDict& dict, Hasher& hasher) {
  hasher.AddNumber(static_cast<int64_t>(dict.names().size()));
  for (const std::string& name : dict.names()) {
    LANCET_ASSIGN_OR_RETURN(const TensorView tensor, dict.Get(name));
    hasher.Add(name);
    hasher.Add(DTypeName(tensor.dtype));
    hasher.AddNumber(static_cast<int64_t>(tensor.shape.size()));
    for (const int64_t extent : tensor.shape) hasher.AddNumber(extent);
    AddSamples(tensor, hasher);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> CheckpointFingerprint(const StateDict& trunk, const StateDict& vae,
                                                  absl::string_view llm_config_json, const StateDict* vision,
                                                  absl::string_view vision_config_json) {
  Hasher hasher;
  LANCET_RETURN_IF_ERROR(AddStateDict(trunk, hasher));
  LANCET_RETURN_IF_ERROR(AddStateDict(vae, hasher));
  hasher.Add(llm_config_json);
  if (vision != nullptr) {
    LANCET_RETURN_IF_ERROR(AddStateDict(*vision, hasher));
    hasher.Add(vision_config_json);
  }
  return hasher.Finish();
}

absl::StatusOr<std::string> StateDictFingerprint(const StateDict& dict) {
  Hasher hasher;
  LANCET_RETURN_IF_ERROR(AddStateDict(dict, hasher));
  return hasher.Finish();
}

}  // namespace lancet

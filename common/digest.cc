#include "common/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace lancet {

Sha256Digest Sha256(absl::string_view text) {
  Sha256Digest digest{};
  unsigned size = digest.size();
  // Fails for lack of memory alone; then nothing matches zeros.
  if (EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1) digest.fill(0);
  return digest;
}

Sha256Digest HmacSha256(absl::string_view key, absl::string_view text) {
  Sha256Digest digest{};
  unsigned size = digest.size();
  if (HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(),
           &size) == nullptr) {
    digest.fill(0);
  }
  return digest;
}

std::string ToHex(const Sha256Digest& digest) {
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

absl::StatusOr<Sha256Digest> ParseDigest(absl::string_view hex) {
  Sha256Digest digest{};
  bool good = hex.size() == 2 * digest.size();
  for (const char c : hex)
    good = good && (absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f'));
  if (!good) return absl::InvalidArgumentError("expected 64 hex digits in lower case");
  const std::string bytes = absl::HexStringToBytes(hex);
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

bool EqualInConstantTime(absl::string_view a, absl::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

absl::StatusOr<std::string> ReadSecretFile(const std::string& path, size_t min_bytes, size_t max_bytes) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(max_bytes + 1, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (file.bad() || !file.is_open())
    return absl::InvalidArgumentError(absl::StrCat("cannot read '", path, "'"));
  bytes.resize(static_cast<size_t>(file.gcount()));
  if (bytes.size() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' has more than ", max_bytes, " bytes"));
  }
  absl::StripAsciiWhitespace(&bytes);
  if (bytes.size() < min_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' has ", bytes.size(), " bytes; expected at least ", min_bytes));
  }
  return bytes;
}

}  // namespace lancet

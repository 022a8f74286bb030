#include "client/client_options.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/host_port.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr size_t kMaxTokenBytes = 4096;

}  // namespace

absl::Status CheckClientOptions(const ClientOptions& options) {
  if (options.server.empty()) return absl::InvalidArgumentError("server is empty; expected host:port");
  const TlsFiles& files = options.tls_files;
  if (!options.tls &&
      !(files.ca.empty() && files.cert.empty() && files.key.empty() && options.tls_server_name.empty())) {
    return absl::InvalidArgumentError("certificates are given, but not TLS");
  }
  if (!options.token.empty() && !options.tls && !IsLoopback(options.server)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a token would go to ", options.server, " for everybody on the way to read; use TLS"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadTokenFile(const std::string& path) {
  LANCET_ASSIGN_OR_RETURN(std::string token, ReadSecretFile(path, 1, kMaxTokenBytes));
  // What metadata may hold.
  if (!std::all_of(token.begin(), token.end(),
                   [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); })) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' holds more than one word"));
  }
  return token;
}

}  // namespace lancet

// TLS for servers and clients from PEM files, which are looked at again while the process runs: new
// certificates count for connections made from then on. TLS 1.2 and 1.3.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace grpc {
class ChannelCredentials;
class ServerCredentials;
}  // namespace grpc

namespace lancet {

struct TlsFiles {
  std::string cert;  // our own certificate and those between it and its root
  std::string key;   // of it, without a password
  std::string ca;    // roots that the other side's certificate must lead to
};

// How often files are looked at. gRPC takes whatever is in them: with a file that cannot be used, new
// connections fail until it is mended; those that exist stay.
inline constexpr unsigned kTlsReloadSeconds = 5;

// Reads all that are named. InvalidArgument names the file that is missing or no PEM, a certificate whose key
// does not belong to it, a certificate without key or a key without certificate.
absl::Status CheckTlsFiles(const TlsFiles& files);

// Needs cert and key; with `ca`, clients must show a certificate that leads there. Errors as CheckTlsFiles.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeTlsServerCredentials(const TlsFiles& files);
// Without `ca` the system's roots count; cert and key are shown to a server that asks. The server's name is
// checked. Errors as CheckTlsFiles.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeTlsChannelCredentials(const TlsFiles& files);

}  // namespace lancet

#include "coordinator/access_flags.h"

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/host_port.h"
#include "common/rank_proof.h"
#include "common/status_macros.h"

ABSL_FLAG(std::string, tls_cert, "",
          "certificate of the public port, PEM, with those up to its root; read again when it changes");
ABSL_FLAG(std::string, tls_key, "", "its key, PEM, without a password");
ABSL_FLAG(std::string, tls_client_ca, "",
          "roots for certificates of clients, PEM: clients must show one (mutual TLS)");
ABSL_FLAG(
    std::string, token_file, "",
    "who may call the public port: a line 'name sha256:<hex> limits...' for each bearer token; read again "
    "when it changes (docs/security.md)");
ABSL_FLAG(std::string, worker_tls_cert, "", "certificate of the worker port, as --tls_cert");
ABSL_FLAG(std::string, worker_tls_key, "", "its key, as --tls_key");
ABSL_FLAG(std::string, worker_tls_ca, "", "roots for certificates of ranks, PEM: ranks must show one");
ABSL_FLAG(std::string, worker_secret_file, "",
          "a secret of 16 bytes or more that ranks must prove to know; the same file as theirs");
ABSL_FLAG(std::string, introspection, "auto",
          "reflection and channelz on the public port, which no token guards: on, off, or auto, that is, on "
          "unless tokens are asked for");
ABSL_FLAG(bool, insecure_listen, false,
          "let others than this machine reach the public port without TLS, or without tokens or client "
          "certificates: for a network that keeps strangers out");

namespace lancet {
namespace {

absl::Status AboutFlags(absl::string_view flags, const absl::Status& status) {
  return status.ok() ? status : absl::InvalidArgumentError(absl::StrCat(flags, ": ", status.message()));
}

absl::Status CheckTls(absl::string_view flags, const TlsFiles& files) {
  LANCET_RETURN_IF_ERROR(AboutFlags(flags, CheckTlsFiles(files)));
  if (files.cert.empty() && !files.ca.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flags, ": roots for the other side need a certificate of our own"));
  }
  return absl::OkStatus();
}

absl::Status CheckPublicAddress(const AccessSettings& settings, const std::string& listen) {
  if (IsLoopback(listen) || absl::GetFlag(FLAGS_insecure_listen)) return absl::OkStatus();
  if (settings.tls.cert.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen=", listen,
                     " can be reached by others: give --tls_cert and --tls_key, or --insecure_listen"));
  }
  if (settings.token_file.empty() && settings.tls.ca.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--listen=", listen,
                                                   " can be reached by others: give --token_file or "
                                                   "--tls_client_ca, or --insecure_listen"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AccessSettings> AccessFromFlags(const std::string& listen, const std::string& worker_listen,
                                               const std::string& metrics_listen) {
  AccessSettings settings;
  settings.tls = {absl::GetFlag(FLAGS_tls_cert), absl::GetFlag(FLAGS_tls_key),
                  absl::GetFlag(FLAGS_tls_client_ca)};
  settings.worker_tls = {absl::GetFlag(FLAGS_worker_tls_cert), absl::GetFlag(FLAGS_worker_tls_key),
                         absl::GetFlag(FLAGS_worker_tls_ca)};
  settings.token_file = absl::GetFlag(FLAGS_token_file);
  LANCET_RETURN_IF_ERROR(CheckTls("--tls_cert, --tls_key, --tls_client_ca", settings.tls));
  LANCET_RETURN_IF_ERROR(
      CheckTls("--worker_tls_cert, --worker_tls_key, --worker_tls_ca", settings.worker_tls));
  if (const std::string path = absl::GetFlag(FLAGS_worker_secret_file); !path.empty()) {
    absl::StatusOr<std::string> secret = ReadSecretFile(path, kMinSecretBytes, kMaxSecretBytes);
    LANCET_RETURN_IF_ERROR(AboutFlags("--worker_secret_file", secret.status()));
    settings.worker_secret = *std::move(secret);
  }
  LANCET_RETURN_IF_ERROR(CheckPublicAddress(settings, listen));
  if (!IsLoopback(worker_listen) && settings.worker_tls.ca.empty() && settings.worker_secret.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--worker_listen=", worker_listen,
                     " can be reached by others: give --worker_tls_ca or "
                     "--worker_secret_file, so that not everybody is taken for a rank"));
  }
  if (!metrics_listen.empty())
    LANCET_RETURN_IF_ERROR(AboutFlags("--metrics_listen", ParseHostPort(metrics_listen).status()));
  const std::string introspection = absl::GetFlag(FLAGS_introspection);
  if (introspection != "auto" && introspection != "on" && introspection != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("--introspection is ", introspection, "; expected auto, on or off"));
  }
  settings.introspection = introspection == "on" || (introspection == "auto" && settings.token_file.empty());
  return settings;
}

}  // namespace lancet

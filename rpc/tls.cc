#include "rpc/tls.h"

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// A bundle of all public roots has a quarter of that.
constexpr size_t kMaxPemBytes = 1 << 20;

template <typename T, void (*Free)(T*)>
struct Deleter {
  void operator()(T* object) const { Free(object); }
};
using Certificate = std::unique_ptr<X509, Deleter<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY, EVP_PKEY_free>>;
struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;

absl::StatusOr<Bio> OpenPem(const std::string& path, std::string& text) {
  LANCET_ASSIGN_OR_RETURN(text, ReadSecretFile(path, 1, kMaxPemBytes));
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

absl::StatusOr<Certificate> ReadCertificate(const std::string& path) {
  std::string text;
  LANCET_ASSIGN_OR_RETURN(const Bio bio, OpenPem(path, text));
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' holds no certificate in PEM"));
  }
  return certificate;
}

absl::StatusOr<Key> ReadKey(const std::string& path) {
  std::string text;
  LANCET_ASSIGN_OR_RETURN(const Bio bio, OpenPem(path, text));
  // An empty password instead of a question on the terminal.
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, const_cast<char*>("")));
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' holds no private key in PEM, or asks for a password"));
  }
  return key;
}

std::shared_ptr<grpc::experimental::CertificateProviderInterface> Watch(const TlsFiles& files) {
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(files.key, files.cert, files.ca,
                                                                              kTlsReloadSeconds);
}

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& files) {
  if (files.cert.empty() != files.key.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("a certificate and its key belong together; the ",
                                                   files.cert.empty() ? "first" : "second", " is not given"));
  }
  if (!files.cert.empty()) {
    LANCET_ASSIGN_OR_RETURN(const Certificate certificate, ReadCertificate(files.cert));
    LANCET_ASSIGN_OR_RETURN(const Key key, ReadKey(files.key));
    if (X509_check_private_key(certificate.get(), key.get()) != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("the key in '", files.key, "' is not that of the certificate in '", files.cert, "'"));
    }
  }
  if (!files.ca.empty()) LANCET_RETURN_IF_ERROR(ReadCertificate(files.ca).status());
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeTlsServerCredentials(const TlsFiles& files) {
  if (files.cert.empty())
    return absl::InvalidArgumentError("a server with TLS needs a certificate and its key");
  LANCET_RETURN_IF_ERROR(CheckTlsFiles(files));
  grpc::experimental::TlsServerCredentialsOptions options(Watch(files));
  options.watch_identity_key_cert_pairs();
  if (files.ca.empty()) {
    options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  } else {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeTlsChannelCredentials(const TlsFiles& files) {
  LANCET_RETURN_IF_ERROR(CheckTlsFiles(files));
  grpc::experimental::TlsChannelCredentialsOptions options;
  if (!files.cert.empty() || !files.ca.empty()) options.set_certificate_provider(Watch(files));
  if (!files.cert.empty()) options.watch_identity_key_cert_pairs();
  if (!files.ca.empty()) options.watch_root_certs();
  options.set_verify_server_certs(true);
  options.set_certificate_verifier(std::make_shared<grpc::experimental::HostNameCertificateVerifier>());
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace lancet

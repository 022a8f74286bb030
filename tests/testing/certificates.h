// Certificates for tests, made on the spot: roots, and what they sign.
#pragma once

#include <memory>
#include <string>

namespace lancet {

struct CertificateOptions {
  std::string name = "localhost";  // common name and subject alternative name
  bool is_ca = false;
  long begins_in_s = -3600;  // from now
  long ends_in_s = 3600;
};

// A certificate and its key, as PEM.
struct TestCertificate {
  std::string certificate;
  std::string key;
};

// Signed by `issuer`, or by itself without one. P-256.
TestCertificate MakeCertificate(const CertificateOptions& options, const TestCertificate* issuer = nullptr);

// Writes the text to dir/name and returns the path. Replaces a file in one step.
std::string WriteTestFile(const std::string& dir, const std::string& name, const std::string& text);

}  // namespace lancet

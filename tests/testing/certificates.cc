#include "tests/testing/certificates.h"

#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <atomic>
#include <cstdio>
#include <fstream>

namespace lancet {
namespace {

std::string Drain(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

void AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  ASSERT_NE(extension, nullptr) << value;
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

}  // namespace

TestCertificate MakeCertificate(const CertificateOptions& options, const TestCertificate* issuer) {
  static std::atomic<long> serial{1000};
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial++);
  X509_gmtime_adj(X509_getm_notBefore(certificate), options.begins_in_s);
  X509_gmtime_adj(X509_getm_notAfter(certificate), options.ends_in_s);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(options.name.c_str()), -1, -1, 0);
  X509_set_pubkey(certificate, key);
  X509* signer = certificate;
  EVP_PKEY* signer_key = key;
  if (issuer != nullptr) {
    BIO* certificate_bio =
        BIO_new_mem_buf(issuer->certificate.data(), static_cast<int>(issuer->certificate.size()));
    signer = PEM_read_bio_X509(certificate_bio, nullptr, nullptr, nullptr);
    BIO_free(certificate_bio);
    BIO* key_bio = BIO_new_mem_buf(issuer->key.data(), static_cast<int>(issuer->key.size()));
    signer_key = PEM_read_bio_PrivateKey(key_bio, nullptr, nullptr, nullptr);
    BIO_free(key_bio);
  }
  X509_set_issuer_name(certificate, X509_get_subject_name(signer));
  AddExtension(certificate, signer, NID_basic_constraints,
               options.is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
  if (options.is_ca) AddExtension(certificate, signer, NID_key_usage, "critical,keyCertSign,cRLSign");
  AddExtension(certificate, signer, NID_subject_alt_name, "DNS:" + options.name);
  X509_sign(certificate, signer_key, EVP_sha256());
  TestCertificate made;
  BIO* out = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(out, certificate);
  made.certificate = Drain(out);
  out = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr);
  made.key = Drain(out);
  if (issuer != nullptr) {
    X509_free(signer);
    EVP_PKEY_free(signer_key);
  }
  X509_free(certificate);
  EVP_PKEY_free(key);
  return made;
}

std::string WriteTestFile(const std::string& dir, const std::string& name, const std::string& text) {
  const std::string path = dir + "/" + name;
  const std::string fresh = path + ".new";
  {
    std::ofstream file(fresh, std::ios::binary);
    file << text;
    file.close();
    EXPECT_TRUE(file) << fresh;
  }
  EXPECT_EQ(std::rename(fresh.c_str(), path.c_str()), 0) << path;
  return path;
}

}  // namespace lancet

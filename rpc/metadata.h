// Reading the metadata of a call.
#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/strings/string_view.h"

namespace lancet {

// The value of a key that may come once; empty if it is missing or comes more often. Lives as long as the
// call.
inline absl::string_view MetadataOf(const grpc::ServerContextBase& context, const char* key) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(key);
  if (found == metadata.end() || metadata.count(key) != 1) return {};
  return {found->second.data(), found->second.size()};
}

}  // namespace lancet

// The connection of a client to its server.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "absl/status/statusor.h"
#include "client/client_options.h"

namespace lancet {

// Encrypted and named as the options say. Errors as CheckClientOptions and CheckTlsFiles.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ClientOptions& options,
                                                           grpc::ChannelArguments arguments);

// Shows the token, if there is one.
void SetAuthorization(const ClientOptions& options, grpc::ClientContext& context);

}  // namespace lancet

#include "client/channel.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ClientOptions& options,
                                                           grpc::ChannelArguments arguments) {
  LANCET_RETURN_IF_ERROR(CheckClientOptions(options));
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (options.tls) {
    LANCET_ASSIGN_OR_RETURN(credentials, MakeTlsChannelCredentials(options.tls_files));
  }
  if (!options.tls_server_name.empty()) arguments.SetSslTargetNameOverride(options.tls_server_name);
  return grpc::CreateCustomChannel(options.server, credentials, arguments);
}

void SetAuthorization(const ClientOptions& options, grpc::ClientContext& context) {
  // Not as call credentials, which gRPC sends over encrypted connections alone: on loopback there may be
  // none.
  if (!options.token.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", options.token));
}

}  // namespace lancet

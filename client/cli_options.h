// The command line of `lancet`: what can be asked, and the text that explains it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/generation_client.h"
#include "client/inline_image.h"

namespace lancet {

enum class CliCommand { kHelp, kVersion, kGenerate, kEdit, kDescribe, kInfo, kStatus, kWatch };

struct CliOptions {
  CliCommand command = CliCommand::kHelp;
  CliCommand help_topic = CliCommand::kHelp;  // of kHelp: all, or one command
  ClientOptions client;
  std::string token_path;                      // its token is not read yet
  absl::Duration interval = absl::Seconds(1);  // of kWatch
  int64_t count = 0;                           // of kWatch: how often; 0: until interrupted
  GenerationRequest request;                   // of kGenerate and kEdit
  DescriptionRequest description;              // of kDescribe
  std::string image_path;                      // of kEdit and kDescribe; its bytes are not read yet
  std::string out_dir = ".";
  bool show = false;
  std::optional<InlineProtocol> show_protocol;  // unset: whatever the terminal can
  bool quiet = false;
  bool json = false;
};

// `arguments` without the program's name. Flags are --name value or --name=value, anywhere; "--" ends them.
// InvalidArgument says what is wrong and, for a misspelt flag, which one was probably meant.
absl::StatusOr<CliOptions> ParseCliArguments(const std::vector<std::string>& arguments);

std::string CliHelp(CliCommand topic);

}  // namespace lancet

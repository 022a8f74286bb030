#include "client/cli.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/cli_options.h"
#include "client/description_output.h"
#include "client/generation_output.h"
#include "client/status_client.h"
#include "client/status_output.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"

#ifndef LANCET_VERSION
#error "LANCET_VERSION must be defined by the build"
#endif

namespace lancet {
namespace {

// A server that lives answers this from memory.
constexpr absl::Duration kInfoTimeout = absl::Seconds(10);
constexpr size_t kAllErrors = 32;
// What is redrawn should fit a screen.
constexpr size_t kWatchedErrors = 8;

ExitCode Report(const absl::Status& status, const CliOptions& options, std::ostream& err) {
  const ExitCode code = ExitCodeOf(status);
  err << "lancet: " << absl::StatusCodeToString(status.code()) << ": " << status.message() << std::endl;
  switch (code) {
    case ExitCode::kUnavailable:
      err << "Is a coordinator running at " << options.client.server << ", with workers? `lancet info` tells."
          << std::endl;
      break;
    case ExitCode::kDeadline:
      err << "--timeout sets how long to wait." << std::endl;
      break;
    case ExitCode::kResourceExhausted:
      err << "The server is busy; try again later." << std::endl;
      break;
    default:
      break;
  }
  return code;
}

// The options of a connection, with the token read.
absl::StatusOr<ClientOptions> ClientOptionsOf(const CliOptions& options) {
  ClientOptions client = options.client;
  if (!options.token_path.empty()) {
    LANCET_ASSIGN_OR_RETURN(client.token, ReadTokenFile(options.token_path));
  }
  return client;
}

absl::StatusOr<std::unique_ptr<GenerationClient>> Connect(const CliOptions& options) {
  LANCET_ASSIGN_OR_RETURN(const ClientOptions client, ClientOptionsOf(options));
  return GenerationClient::Create(client);
}

// The file that a request is about. What is too large for any server is not read.
absl::StatusOr<std::string> ReadImage(const std::string& path) {
  constexpr std::streamoff kMaxBytes = 256 << 20;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  const std::streamoff size = file.tellg();
  if (size < 0 || size > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is no file, or has more than ", kMaxBytes >> 20, " MiB"));
  }
  std::string bytes(static_cast<size_t>(size), '\0');
  file.seekg(0);
  if (!file.read(bytes.data(), size)) return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  return bytes;
}

ExitCode Draw(const CliOptions& options, const CliEnvironment& environment, Cancellation* cancellation) {
  OutputOptions output_options{.out_dir = options.out_dir,
                               .quiet = options.quiet,
                               .json = options.json,
                               .bar = environment.err_is_terminal && !options.quiet,
                               .columns = environment.columns,
                               .show = options.show_protocol};
  if (options.show && !options.show_protocol.has_value()) {
    const absl::StatusOr<InlineProtocol> detected = environment.detect_inline_protocol();
    if (detected.ok()) {
      output_options.show = *detected;
    } else {
      environment.err << "lancet: --show: " << detected.status().message() << std::endl;
    }
  }
  std::error_code error;
  std::filesystem::create_directories(options.out_dir, error);
  if (error) {
    environment.err << "lancet: cannot make the folder " << options.out_dir << ": " << error.message()
                    << std::endl;
    return ExitCode::kOther;
  }
  absl::StatusOr<std::unique_ptr<GenerationClient>> client = Connect(options);
  if (!client.ok()) return Report(client.status(), options, environment.err);
  GenerationOutput output(output_options, environment.out, environment.err);
  GenerationRequest request = options.request;
  const bool edits = options.command == CliCommand::kEdit;
  if (edits) {
    absl::StatusOr<std::string> image = ReadImage(options.image_path);
    if (!image.ok()) return Report(image.status(), options, environment.err);
    request.image = *std::move(image);
  }
  const absl::StatusOr<GenerationResult> result = edits ? (*client)->Edit(request, &output, cancellation)
                                                        : (*client)->Generate(request, &output, cancellation);
  output.EndBar();
  if (!result.ok()) return Report(result.status(), options, environment.err);
  const absl::Status finished = output.Finish(*result);
  return finished.ok() ? ExitCode::kOk : Report(finished, options, environment.err);
}

ExitCode Describe(const CliOptions& options, const CliEnvironment& environment, Cancellation* cancellation) {
  DescriptionRequest request = options.description;
  absl::StatusOr<std::string> image = ReadImage(options.image_path);
  if (!image.ok()) return Report(image.status(), options, environment.err);
  request.image = *std::move(image);
  absl::StatusOr<std::unique_ptr<GenerationClient>> client = Connect(options);
  if (!client.ok()) return Report(client.status(), options, environment.err);
  DescriptionOutput output({.quiet = options.quiet, .json = options.json}, environment.out, environment.err);
  const absl::StatusOr<DescriptionResult> result = (*client)->Describe(request, &output, cancellation);
  if (!result.ok()) {
    output.EndLine();
    return Report(result.status(), options, environment.err);
  }
  output.Finish(*result);
  return ExitCode::kOk;
}

std::string SizeText(const std::pair<int32_t, int32_t>& size) {
  return absl::StrCat(size.first, "x", size.second);
}

void PrintInfo(const ModelDescription& info, std::ostream& out) {
  const std::string sizes =
      absl::StrJoin(info.recommended_sizes, ", ",
                    [](std::string* text, const auto& size) { absl::StrAppend(text, SizeText(size)); });
  out << "model: " << info.name << "\n"
      << "fingerprint: " << info.fingerprint << "\n"
      << "quantization: " << info.quantization << "\n"
      << "default size: " << SizeText(info.default_size) << "\n"
      << "recommended sizes: " << (sizes.empty() ? "any" : sizes) << "\n"
      << "limits: prompt " << info.max_prompt_bytes << " bytes and " << info.max_prompt_tokens
      << " tokens, steps " << info.max_steps << ", side " << info.max_side << " px, " << info.max_pixels
      << " pixels, queue " << info.max_queue << ", answer " << info.max_new_tokens << " tokens, image "
      << info.max_image_bytes << " bytes, " << info.max_image_side << " px and " << info.max_image_pixels
      << " pixels\n"
      << "tasks: " << absl::StrJoin(info.tasks, ", ") << "\n";
  for (const ModelDescription::Group& group : info.groups) {
    out << "group " << group.name << ": " << group.state << ", " << group.world_size << " ranks, "
        << group.active_requests << " active requests, " << group.device << "\n";
  }
  out << "server version: " << info.server_version << std::endl;
}

void PrintInfoJson(const ModelDescription& info, std::ostream& out) {
  nlohmann::ordered_json json = {{"name", info.name},
                                 {"fingerprint", info.fingerprint},
                                 {"quantization", info.quantization},
                                 {"default_size", info.default_size},
                                 {"recommended_sizes", info.recommended_sizes},
                                 {"limits",
                                  {{"max_prompt_bytes", info.max_prompt_bytes},
                                   {"max_prompt_tokens", info.max_prompt_tokens},
                                   {"max_steps", info.max_steps},
                                   {"max_side", info.max_side},
                                   {"max_pixels", info.max_pixels},
                                   {"max_queue", info.max_queue},
                                   {"max_new_tokens", info.max_new_tokens},
                                   {"max_image_bytes", info.max_image_bytes},
                                   {"max_image_side", info.max_image_side},
                                   {"max_image_pixels", info.max_image_pixels}}},
                                 {"tasks", info.tasks},
                                 {"groups", nlohmann::ordered_json::array()},
                                 {"server_version", info.server_version}};
  for (const ModelDescription::Group& group : info.groups) {
    json["groups"].push_back({{"name", group.name},
                              {"state", group.state},
                              {"world_size", group.world_size},
                              {"active_requests", group.active_requests},
                              {"device", group.device}});
  }
  out << json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << std::endl;
}

ExitCode Info(const CliOptions& options, const CliEnvironment& environment) {
  absl::StatusOr<std::unique_ptr<GenerationClient>> client = Connect(options);
  if (!client.ok()) return Report(client.status(), options, environment.err);
  const absl::StatusOr<ModelDescription> info =
      (*client)->GetModelInfo(std::min(options.request.timeout, kInfoTimeout));
  if (!info.ok()) return Report(info.status(), options, environment.err);
  if (options.json) {
    PrintInfoJson(*info, environment.out);
  } else {
    PrintInfo(*info, environment.out);
  }
  return ExitCode::kOk;
}

absl::StatusOr<std::unique_ptr<StatusClient>> ConnectForStatus(const CliOptions& options) {
  LANCET_ASSIGN_OR_RETURN(const ClientOptions client, ClientOptionsOf(options));
  return StatusClient::Create(client);
}

ExitCode Status(const CliOptions& options, const CliEnvironment& environment) {
  const absl::StatusOr<std::unique_ptr<StatusClient>> client = ConnectForStatus(options);
  if (!client.ok()) return Report(client.status(), options, environment.err);
  const absl::StatusOr<ServerStatus> status =
      (*client)->GetStatus(std::min(options.request.timeout, kInfoTimeout));
  if (!status.ok()) return Report(status.status(), options, environment.err);
  if (options.json) {
    environment.out << StatusJson(*status) << std::endl;
  } else {
    environment.out << StatusText(*status, kAllErrors) << std::flush;
  }
  return ExitCode::kOk;
}

// Until Ctrl-C, which is how one is meant to leave. A server that is away for a while is waited for.
ExitCode Watch(const CliOptions& options, const CliEnvironment& environment, Cancellation* cancellation) {
  const absl::StatusOr<std::unique_ptr<StatusClient>> client = ConnectForStatus(options);
  if (!client.ok()) return Report(client.status(), options, environment.err);
  // Back to the top, text, and nothing below it.
  const bool redraw = environment.err_is_terminal && !options.json;
  if (redraw) environment.out << "\x1b[2J";
  for (int64_t look = 1;; ++look) {
    const absl::StatusOr<ServerStatus> status =
        (*client)->GetStatus(std::min(options.request.timeout, kInfoTimeout));
    const bool away = absl::IsUnavailable(status.status()) || absl::IsDeadlineExceeded(status.status());
    if (!status.ok() && !away) return Report(status.status(), options, environment.err);
    if (redraw) environment.out << "\x1b[H";
    if (!status.ok()) {
      environment.err << "lancet: no answer from " << options.client.server << ": "
                      << status.status().message() << std::endl;
    } else if (options.json) {
      environment.out << StatusJson(*status) << std::endl;
    } else {
      environment.out << absl::FormatTime("%H:%M:%S ", absl::Now(), absl::LocalTimeZone())
                      << StatusText(*status, kWatchedErrors);
    }
    if (redraw) environment.out << "\x1b[J";
    environment.out << std::flush;
    if (look == options.count) return status.ok() ? ExitCode::kOk : ExitCodeOf(status.status());
    if (cancellation->AwaitCancel(options.interval)) return ExitCode::kOk;
  }
}

}  // namespace

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ExitCode::kOk;
    case absl::StatusCode::kInvalidArgument:
      return ExitCode::kUsage;
    case absl::StatusCode::kUnavailable:
      return ExitCode::kUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return ExitCode::kDeadline;
    case absl::StatusCode::kCancelled:
      return ExitCode::kCancelled;
    case absl::StatusCode::kResourceExhausted:
      return ExitCode::kResourceExhausted;
    default:
      return ExitCode::kOther;
  }
}

ExitCode RunCli(const std::vector<std::string>& arguments, const CliEnvironment& environment,
                Cancellation* cancellation) {
  const absl::StatusOr<CliOptions> options = ParseCliArguments(arguments);
  if (!options.ok()) {
    environment.err << "lancet: " << options.status().message() << "\n`lancet --help` explains." << std::endl;
    return ExitCode::kUsage;
  }
  switch (options->command) {
    case CliCommand::kHelp:
      environment.out << CliHelp(options->help_topic) << std::flush;
      return ExitCode::kOk;
    case CliCommand::kVersion:
      environment.out << "lancet " << LANCET_VERSION << std::endl;
      return ExitCode::kOk;
    case CliCommand::kGenerate:
    case CliCommand::kEdit:
      return Draw(*options, environment, cancellation);
    case CliCommand::kDescribe:
      return Describe(*options, environment, cancellation);
    case CliCommand::kInfo:
      return Info(*options, environment);
    case CliCommand::kStatus:
      return Status(*options, environment);
    case CliCommand::kWatch:
      return Watch(*options, environment, cancellation);
  }
  return ExitCode::kOther;
}

}  // namespace lancet

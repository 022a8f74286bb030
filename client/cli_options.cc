#include "client/cli_options.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

enum class Value { kNone, kOptional, kRequired };

// Bits of Flag::commands.
constexpr unsigned kForGenerate = 1;
constexpr unsigned kForEdit = 2;
constexpr unsigned kForDescribe = 4;
constexpr unsigned kForInfo = 8;
constexpr unsigned kForStatus = 16;
constexpr unsigned kForWatch = 32;
constexpr unsigned kDraws = kForGenerate | kForEdit;
constexpr unsigned kWorks = kDraws | kForDescribe;
constexpr unsigned kEverywhere = kWorks | kForInfo | kForStatus | kForWatch;

// One flag: how it is written, what it does to the options, and how it is explained.
struct Flag {
  absl::string_view name;              // without dashes
  absl::string_view placeholder = {};  // of its value in the help
  Value value = Value::kRequired;
  unsigned commands = kDraws;  // that take it
  absl::string_view help;
  // False if the value is not what `expects` says.
  std::function<bool(absl::string_view, CliOptions&)> apply;
  absl::string_view expects = {};
};

template <typename T>
bool ParseNumber(absl::string_view text, T& out) {
  if constexpr (std::is_floating_point_v<T>) {
    return absl::SimpleAtof(text, &out);
  } else {
    return absl::SimpleAtoi(text, &out);
  }
}

template <typename T>
bool ParseNumber(absl::string_view text, std::optional<T>& out) {
  return ParseNumber(text, out.emplace());
}

template <typename T>
bool ParsePair(absl::string_view text, char separator, std::optional<std::pair<T, T>>& out) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, separator);
  out.emplace();
  return parts.size() == 2 && ParseNumber(parts[0], out->first) && ParseNumber(parts[1], out->second);
}

bool ParseFormat(absl::string_view text, PictureFormat& out) {
  if (text == "png") {
    out = PictureFormat::kPng;
  } else if (text == "jpeg" || text == "jpg") {
    out = PictureFormat::kJpeg;
  } else if (text == "webp") {
    out = PictureFormat::kWebp;
  } else {
    return false;
  }
  return true;
}

bool ParseTimeout(absl::string_view text, absl::Duration& out) {
  double seconds = 0;
  if (absl::SimpleAtod(text, &seconds)) {
    out = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, &out)) {
    return false;
  }
  return out > absl::ZeroDuration();
}

bool ParseResolution(absl::string_view text, CliOptions& options) {
  constexpr std::pair<absl::string_view, InputResolution> kNames[] = {{"256", InputResolution::kImage256},
                                                                      {"512", InputResolution::kImage512},
                                                                      {"768", InputResolution::kImage768},
                                                                      {"360p", InputResolution::kVideo360p},
                                                                      {"480p", InputResolution::kVideo480p}};
  for (const auto& [name, resolution] : kNames) {
    if (text != name) continue;
    options.request.resolution = resolution;
    options.description.resolution = resolution;
    return true;
  }
  return false;
}

Flag ServerFlag(absl::string_view name, absl::string_view help) {
  return {.name = name,
          .placeholder = "ADDR",
          .commands = kEverywhere,
          .help = help,
          .apply =
              [](absl::string_view v, CliOptions& o) {
                o.client.server = std::string(v);
                return !v.empty();
              },
          .expects = "host:port"};
}

Flag FileFlag(absl::string_view name, absl::string_view help, std::string* (*where)(CliOptions&)) {
  return {.name = name,
          .placeholder = "FILE",
          .commands = kEverywhere,
          .help = help,
          .apply =
              [where](absl::string_view v, CliOptions& o) {
                *where(o) = std::string(v);
                return !v.empty();
              },
          .expects = "a file"};
}

std::vector<Flag> Flags() {
  return {
      {.name = "seed",
       .placeholder = "N",
       .commands = kWorks,
       .help = "of all randomness; the same seed gives the same result (default: random, printed)",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             const bool good = ParseNumber(v, o.request.seed);
             o.description.seed = o.request.seed;
             return good;
           },
       .expects = "a number from 0 to 2^64 - 1"},
      {.name = "steps",
       .placeholder = "N",
       .help = "denoising steps; fewer is faster and rougher (default: 30)",
       .apply = [](absl::string_view v, CliOptions& o) { return ParseNumber(v, o.request.num_steps); },
       .expects = "a whole number"},
      {.name = "size",
       .placeholder = "WxH",
       .help = "pixels, multiples of 16, such as 768x768 (default: the model's); edit: the area",
       .apply = [](absl::string_view v, CliOptions& o) { return ParsePair(v, 'x', o.request.size); },
       .expects = "width x height, such as 768x768"},
      {.name = "guidance",
       .placeholder = "X",
       .help = "how closely to follow the prompt; 1 and less turns guidance off (default: 4.0)",
       .apply = [](absl::string_view v, CliOptions& o) { return ParseNumber(v, o.request.guidance_scale); },
       .expects = "a number"},
      {.name = "guidance_interval",
       .placeholder = "A,B",
       .help = "guide while A < t <= B; t runs from 1 (noise) to 0 (picture) (default: 0.4,1)",
       .apply = [](absl::string_view v,
                   CliOptions& o) { return ParsePair(v, ',', o.request.guidance_interval); },
       .expects = "two numbers, such as 0.4,1"},
      {.name = "shift",
       .placeholder = "X",
       .help = "shift of the timesteps towards noise (default: 3.5)",
       .apply = [](absl::string_view v, CliOptions& o) { return ParseNumber(v, o.request.timestep_shift); },
       .expects = "a number"},
      {.name = "previews",
       .placeholder = "N",
       .help = "also write the unfinished picture after every N-th step (default: 0, none)",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             if (!ParseNumber(v, o.request.preview_every_steps)) return false;
             if (*o.request.preview_every_steps == 0) o.request.preview_every_steps.reset();
             return true;
           },
       .expects = "a whole number"},
      {.name = "preview_method",
       .placeholder = "latent|vae",
       .help = "latent: small, next to no cost; vae: sharp, costs one decode each (default: latent)",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             o.request.preview_kind = v == "vae" ? PreviewKind::kVae : PreviewKind::kLatentRgb;
             return v == "vae" || v == "latent";
           },
       .expects = "latent or vae"},
      {.name = "preview_size",
       .placeholder = "PX",
       .help = "longer side of previews (default: 256)",
       .apply = [](absl::string_view v, CliOptions& o) { return ParseNumber(v, o.request.preview_max_side); },
       .expects = "a whole number"},
      {.name = "format",
       .placeholder = "png|jpeg|webp",
       .help = "of the result (default: png)",
       .apply = [](absl::string_view v, CliOptions& o) { return ParseFormat(v, o.request.output_format); },
       .expects = "png, jpeg or webp"},
      {.name = "out",
       .placeholder = "DIR",
       .help = "where files go: result.png, preview_05.jpg ...; made if missing (default: .)",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             o.out_dir = std::string(v);
             return !v.empty();
           },
       .expects = "a folder"},
      {.name = "show",
       .placeholder = "[=kitty|iterm2|sixel]",
       .value = Value::kOptional,
       .help = "draw previews and result in the terminal; a preview every 5 steps unless --previews says "
               "otherwise",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             o.show = true;
             if (v == "kitty") o.show_protocol = InlineProtocol::kKitty;
             if (v == "iterm2") o.show_protocol = InlineProtocol::kIterm2;
             if (v == "sixel") o.show_protocol = InlineProtocol::kSixel;
             return v.empty() || o.show_protocol.has_value();
           },
       .expects = "nothing, kitty, iterm2 or sixel"},
      {.name = "sampler",
       .placeholder = "euler|dpmpp",
       .help = "dpmpp: about 12 steps look like 30 of euler (default: euler)",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             o.request.sampler = v == "dpmpp" ? RequestSampler::kDpmpp2m : RequestSampler::kEuler;
             return v == "dpmpp" || v == "euler";
           },
       .expects = "euler or dpmpp"},
      {.name = "resolution",
       .placeholder = "256|512|768|360p|480p",
       .commands = kForEdit | kForDescribe,
       .help = "what the picture is brought to (default: the model's)",
       .apply = ParseResolution,
       .expects = "256, 512, 768, 360p or 480p"},
      {.name = "sample_condition",
       .value = Value::kNone,
       .commands = kForEdit,
       .help = "see the picture through a sample of its encoding, not the mean",
       .apply =
           [](absl::string_view, CliOptions& o) {
             o.request.sample_condition = true;
             return true;
           }},
      {.name = "system",
       .placeholder = "TEXT",
       .commands = kForDescribe,
       .help = "how to answer (default: the model's)",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             o.description.system_prompt = std::string(v);
             return true;
           },
       .expects = "a text"},
      {.name = "max_tokens",
       .placeholder = "N",
       .commands = kForDescribe,
       .help = "ends the answer at the latest (default: 256)",
       .apply = [](absl::string_view v,
                   CliOptions& o) { return ParseNumber(v, o.description.max_new_tokens); },
       .expects = "a whole number"},
      {.name = "temperature",
       .placeholder = "X",
       .commands = kForDescribe,
       .help = "0: the likeliest word each time; 1: drawn as the model weighs them (default: 0)",
       .apply = [](absl::string_view v, CliOptions& o) { return ParseNumber(v, o.description.temperature); },
       .expects = "a number"},
      {.name = "priority",
       .placeholder = "low|normal|high",
       .commands = kWorks,
       .help = "place in the server's queue (default: normal)",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             o.request.priority = v == "low"    ? RequestPriority::kLow
                                  : v == "high" ? RequestPriority::kHigh
                                                : RequestPriority::kNormal;
             o.description.priority = o.request.priority;
             return v == "low" || v == "normal" || v == "high";
           },
       .expects = "low, normal or high"},
      {.name = "quiet",
       .value = Value::kNone,
       .commands = kWorks,
       .help = "no progress on stderr",
       .apply =
           [](absl::string_view, CliOptions& o) {
             o.quiet = true;
             return true;
           }},
      {.name = "json",
       .value = Value::kNone,
       .commands = kEverywhere,
       .help = "one JSON object a line on stdout instead of text; the last one is the result",
       .apply =
           [](absl::string_view, CliOptions& o) {
             o.json = true;
             return true;
           }},
      {.name = "timeout",
       .placeholder = "T",
       .commands = kEverywhere,
       .help = "give up after so long, such as 90, 90s or 5m (default: none; info, status: 10s)",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             const bool good = ParseTimeout(v, o.request.timeout);
             o.description.timeout = o.request.timeout;
             return good;
           },
       .expects = "a time above 0, such as 90, 90s or 5m"},
      {.name = "idempotency_key",
       .placeholder = "KEY",
       .commands = kWorks,
       .help =
           "name of this request, unique among all clients: with it the request survives a lost connection",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             o.request.idempotency_key = std::string(v);
             o.description.idempotency_key = std::string(v);
             return !v.empty();
           },
       .expects = "at most 128 printable characters"},
      {.name = "interval",
       .placeholder = "T",
       .commands = kForWatch,
       .help = "between two looks, such as 5s or 500ms (default: 1s)",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             return ParseTimeout(v, o.interval) && o.interval >= absl::Milliseconds(100);
           },
       .expects = "a time from 100ms"},
      {.name = "count",
       .placeholder = "N",
       .commands = kForWatch,
       .help = "looks to take; 0: until Ctrl-C (default: 0)",
       .apply = [](absl::string_view v, CliOptions& o) { return ParseNumber(v, o.count) && o.count >= 0; },
       .expects = "a whole number"},
      ServerFlag("server", "host:port or unix:path of the coordinator (default: 127.0.0.1:50051)"),
      ServerFlag("endpoint", "the same as --server"),
      {.name = "tls",
       .value = Value::kNone,
       .commands = kEverywhere,
       .help = "encrypt, and check who the server is",
       .apply =
           [](absl::string_view, CliOptions& o) {
             o.client.tls = true;
             return true;
           }},
      FileFlag("tls_ca", "with --tls: roots for the server's certificate, PEM (default: the system's)",
               [](CliOptions& o) { return &o.client.tls_files.ca; }),
      FileFlag("tls_cert", "with --tls: certificate to show the server, PEM",
               [](CliOptions& o) { return &o.client.tls_files.cert; }),
      FileFlag("tls_key", "with --tls: its key, PEM", [](CliOptions& o) { return &o.client.tls_files.key; }),
      {.name = "tls_server_name",
       .placeholder = "NAME",
       .commands = kEverywhere,
       .help = "with --tls: name that the server's certificate must have (default: the one in --server)",
       .apply =
           [](absl::string_view v, CliOptions& o) {
             o.client.tls_server_name = std::string(v);
             return !v.empty();
           },
       .expects = "a name"},
      FileFlag("token_file", "holds the token to show the server",
               [](CliOptions& o) { return &o.token_path; }),
  };
}

// Letters to insert, delete or replace between the two.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

absl::Status UnknownFlag(absl::string_view name, const std::vector<Flag>& flags) {
  // A cut-off flag is nearer than any misspelling.
  const auto distance = [name](const Flag& flag) {
    return absl::StartsWith(flag.name, name) ? 0 : EditDistance(name, flag.name);
  };
  const auto nearest = std::min_element(
      flags.begin(), flags.end(), [&](const Flag& a, const Flag& b) { return distance(a) < distance(b); });
  // With half of the letters wrong it is no misspelling any more.
  const bool likely = distance(*nearest) <= (name.size() + 1) / 2;
  return absl::InvalidArgumentError(absl::StrCat("unknown flag --", name,
                                                 likely
                                                     ? absl::StrCat("; did you mean --", nearest->name, "?")
                                                     : "; lancet --help lists what there is"));
}

// The flags of one command, or those that all take.
std::string FlagHelp(unsigned command) {
  std::string out;
  for (const Flag& flag : Flags()) {
    if (command == kEverywhere ? flag.commands != kEverywhere : (flag.commands & command) == 0) continue;
    const bool attached = flag.value == Value::kOptional;
    absl::StrAppendFormat(
        &out, "  %-29s %s\n",
        absl::StrCat("--", flag.name, attached || flag.placeholder.empty() ? "" : " ", flag.placeholder),
        flag.help);
  }
  return out;
}

unsigned BitOf(CliCommand command) {
  switch (command) {
    case CliCommand::kGenerate:
      return kForGenerate;
    case CliCommand::kEdit:
      return kForEdit;
    case CliCommand::kDescribe:
      return kForDescribe;
    case CliCommand::kInfo:
      return kForInfo;
    case CliCommand::kStatus:
      return kForStatus;
    case CliCommand::kWatch:
      return kForWatch;
    case CliCommand::kHelp:
    case CliCommand::kVersion:
      break;
  }
  return kEverywhere;
}

// "generate and edit".
std::string CommandNames(unsigned commands) {
  std::vector<absl::string_view> names;
  if ((commands & kForGenerate) != 0) names.push_back("generate");
  if ((commands & kForEdit) != 0) names.push_back("edit");
  if ((commands & kForDescribe) != 0) names.push_back("describe");
  if ((commands & kForWatch) != 0) names.push_back("watch");
  return absl::StrJoin(names, " and ");
}

absl::StatusOr<CliCommand> ParseCommand(absl::string_view word) {
  if (word == "generate") return CliCommand::kGenerate;
  if (word == "edit") return CliCommand::kEdit;
  if (word == "describe") return CliCommand::kDescribe;
  if (word == "info") return CliCommand::kInfo;
  if (word == "status") return CliCommand::kStatus;
  if (word == "watch") return CliCommand::kWatch;
  if (word == "help") return CliCommand::kHelp;
  if (word == "version") return CliCommand::kVersion;
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown command \"", word, "\"; expected generate, edit, describe, info, status, watch or help"));
}

// `words` are the command and `least` to `most` more.
absl::Status CheckCount(const std::vector<std::string>& words, size_t least, size_t most,
                        absl::string_view usage, absl::string_view what) {
  if (words.size() < least + 1) return absl::InvalidArgumentError(absl::StrCat(words[0], " needs ", usage));
  if (words.size() <= most + 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("one ", what, " expected, but \"", words[most + 1],
                                                 "\" follows; put the ", what, " in quotes"));
}

// What is left when all flags are taken out: the command and what it is applied to.
absl::Status ApplyPositional(const std::vector<std::string>& words, CliOptions& options) {
  LANCET_ASSIGN_OR_RETURN(options.command, ParseCommand(words[0]));
  switch (options.command) {
    case CliCommand::kGenerate:
      LANCET_RETURN_IF_ERROR(
          CheckCount(words, 1, 1, "a prompt: lancet generate \"a rocket in the top left\"", "prompt"));
      options.request.prompt = words[1];
      return absl::OkStatus();
    case CliCommand::kEdit:
      LANCET_RETURN_IF_ERROR(CheckCount(
          words, 2, 2, "a picture and an instruction: lancet edit cat.png \"make the background yellow\"",
          "instruction"));
      options.image_path = words[1];
      options.request.prompt = words[2];
      return absl::OkStatus();
    case CliCommand::kDescribe:
      LANCET_RETURN_IF_ERROR(
          CheckCount(words, 1, 2, "a picture: lancet describe cat.png \"What is on the left?\"", "question"));
      options.image_path = words[1];
      if (words.size() == 3) options.description.question = words[2];
      return absl::OkStatus();
    case CliCommand::kHelp: {
      if (words.size() != 2) break;
      LANCET_ASSIGN_OR_RETURN(options.help_topic, ParseCommand(words[1]));
      return absl::OkStatus();
    }
    case CliCommand::kInfo:
    case CliCommand::kStatus:
    case CliCommand::kWatch:
    case CliCommand::kVersion:
      break;
  }
  if (words.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(words[0], " takes no argument, but \"", words[1], "\" follows"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CliOptions> ParseCliArguments(const std::vector<std::string>& arguments) {
  const std::vector<Flag> flags = Flags();
  CliOptions options;
  std::vector<std::string> words;
  std::vector<const Flag*> given;
  bool help = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      words.insert(words.end(), arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1, arguments.end());
      break;
    }
    if (argument == "--help" || argument == "-h") {
      help = true;
      continue;
    }
    if (argument == "--version") {
      options.command = CliCommand::kVersion;
      return options;
    }
    if (!absl::StartsWith(argument, "-") || argument == "-") {
      words.push_back(argument);
      continue;
    }
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(absl::string_view(argument).substr(absl::StartsWith(argument, "--") ? 2 : 1),
                       absl::MaxSplits('=', 1));
    const bool has_value = absl::StrContains(argument, '=');
    const auto flag =
        std::find_if(flags.begin(), flags.end(), [&](const Flag& f) { return f.name == parts.first; });
    if (flag == flags.end() || !absl::StartsWith(argument, "--")) return UnknownFlag(parts.first, flags);
    std::string value = parts.second;
    if (flag->value == Value::kNone && has_value) {
      return absl::InvalidArgumentError(absl::StrCat("--", flag->name, " takes no value"));
    }
    if (flag->value == Value::kRequired && !has_value) {
      if (i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat("--", flag->name, " needs a value: ", flag->expects));
      }
      value = arguments[++i];
    }
    if (!flag->apply(value, options)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag->name, " is \"", value, "\"; expected ", flag->expects));
    }
    given.push_back(&*flag);
  }
  if (words.empty() && !help)
    return absl::InvalidArgumentError(
        "no command; expected generate, edit, describe, info, status, watch or help");
  if (help) {
    if (!words.empty()) {
      LANCET_ASSIGN_OR_RETURN(options.help_topic, ParseCommand(words[0]));
    }
    options.command = CliCommand::kHelp;
    return options;
  }
  LANCET_RETURN_IF_ERROR(ApplyPositional(words, options));
  for (const Flag* flag : given) {
    if ((flag->commands & BitOf(options.command)) != 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--", flag->name, " belongs to ", CommandNames(flag->commands)));
  }
  if (options.show) {
    if (!options.request.preview_every_steps.has_value()) options.request.preview_every_steps = 5;
    // The one format that every way of showing takes.
    options.request.preview_format = PictureFormat::kPng;
  }
  return options;
}

std::string CliHelp(CliCommand topic) {
  constexpr absl::string_view kExitCodes =
      "Exit codes: 0 done, 1 another error, 2 wrong usage or an argument the server refused, 3 no server or "
      "it is\n"
      "unavailable, 4 timed out, 5 cancelled (Ctrl-C), 6 the server's queue is full: try again later.\n";
  if (topic == CliCommand::kGenerate) {
    return absl::StrCat(
        "lancet generate \"PROMPT\" [flags]\n\n"
        "Draws a picture from a text and writes it to a file. Progress goes to stderr; stdout gets seed, "
        "timings and\n"
        "paths, and its last line is \"result: PATH\".\n\n",
        FlagHelp(kForGenerate),
        "\nExamples:\n"
        "  lancet generate \"a rocket in the top left, a panda in the top right\"\n"
        "  lancet generate \"three waves\" --seed 7 --previews 5 --out waves/     preview_05.jpg ... "
        "result.png\n"
        "  lancet generate \"a red apple\" --steps 12 --format webp --quiet       quick, for a script\n"
        "  lancet generate \"a teddy bear\" --show                                previews in the terminal\n"
        "  lancet generate -- \"--a prompt that begins with dashes\"\n\n",
        kExitCodes);
  }
  if (topic == CliCommand::kEdit) {
    return absl::StrCat(
        "lancet edit IMAGE \"INSTRUCTION\" [flags]\n\n"
        "Changes a picture (PNG, JPEG or WebP) as an instruction says and writes the result to a file, as "
        "generate does. The\n"
        "result has the shape of the picture, as the nearest of six aspect ratios, and the area of "
        "--resolution or --size.\n\n",
        FlagHelp(kForEdit),
        "\nExamples:\n"
        "  lancet edit panda.png \"replace the panda with a tiger\"\n"
        "  lancet edit photo.jpg \"make the background yellow\" --seed 7 --out edited/\n"
        "  lancet edit photo.jpg \"remove the hat\" --resolution 512 --sampler dpmpp --steps 12\n\n",
        kExitCodes);
  }
  if (topic == CliCommand::kDescribe) {
    return absl::StrCat(
        "lancet describe IMAGE [\"QUESTION\"] [flags]\n\n"
        "Answers a question about a picture (PNG, JPEG or WebP), or describes it. The answer goes to stdout "
        "as it is written;\neverything else goes to stderr.\n\n",
        FlagHelp(kForDescribe),
        "\nExamples:\n"
        "  lancet describe photo.jpg\n"
        "  lancet describe photo.jpg \"What is on the left?\"\n"
        "  lancet describe photo.jpg --max_tokens 40 --quiet                     for a script\n\n",
        kExitCodes);
  }
  if (topic == CliCommand::kInfo) {
    return absl::StrCat(
        "lancet info [flags]\n\nPrints the server's model, its limits and the state of its worker "
        "groups.\n\n",
        FlagHelp(kForInfo), "\n", kExitCodes);
  }
  if (topic == CliCommand::kStatus) {
    return absl::StrCat(
        "lancet status [flags]\n\nPrints what the server does now: its queue, its groups and their ranks, "
        "and the "
        "requests\nthat failed last. A server that asks for tokens answers this for those marked admin.\n\n",
        kExitCodes);
  }
  if (topic == CliCommand::kWatch) {
    return absl::StrCat(
        "lancet watch [flags]\n\nShows what lancet status shows, again and again; on a terminal in one "
        "place.\n\n",
        FlagHelp(kForWatch), "\n", kExitCodes);
  }
  return absl::StrCat(
      "lancet: pictures from text, edits and descriptions, by a Lancet server\n\n"
      "  lancet generate \"PROMPT\" [flags]   draw a picture; lancet help generate has the flags and "
      "examples\n"
      "  lancet edit IMAGE \"INSTRUCTION\"    change a picture\n"
      "  lancet describe IMAGE [\"QUESTION\"] describe a picture, or answer a question about it\n"
      "  lancet info [flags]                the server's model, limits and worker groups\n"
      "  lancet status [flags]              the server's queue, groups and recent errors\n"
      "  lancet watch [flags]               the same, again and again\n"
      "  lancet help [command]\n"
      "  lancet version\n\n"
      "First steps, in three terminals:\n"
      "  lancet-coordinator --model_dir models/demo\n"
      "  lancet-worker --model_dir models/demo\n"
      "  lancet generate \"a rocket in the top left\" --previews 5 --out pictures/\n\n",
      "Flags of every command:\n", FlagHelp(kEverywhere), "\n", kExitCodes);
}

}  // namespace lancet

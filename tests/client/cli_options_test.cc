#include "client/cli_options.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

CliOptions Parsed(const std::vector<std::string>& arguments) {
  absl::StatusOr<CliOptions> options = ParseCliArguments(arguments);
  EXPECT_TRUE(options.ok()) << options.status();
  return options.ok() ? *std::move(options) : CliOptions();
}

std::string Error(const std::vector<std::string>& arguments) {
  const absl::StatusOr<CliOptions> options = ParseCliArguments(arguments);
  EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(options.status().message());
}

TEST(CliOptionsTest, LeavesToTheServerWhatIsNotGiven) {
  const CliOptions options = Parsed({"generate", "three waves"});
  EXPECT_EQ(options.command, CliCommand::kGenerate);
  EXPECT_EQ(options.request.prompt, "three waves");
  EXPECT_EQ(options.request.seed, std::nullopt);
  EXPECT_EQ(options.request.num_steps, std::nullopt);
  EXPECT_EQ(options.request.size, std::nullopt);
  EXPECT_EQ(options.request.preview_every_steps, std::nullopt);
  EXPECT_EQ(options.request.timeout, absl::InfiniteDuration());
  EXPECT_EQ(options.out_dir, ".");
}

TEST(CliOptionsTest, ReadsEveryFlagInEitherForm) {
  const CliOptions options = Parsed({"generate",
                                     "--seed",
                                     "18446744073709551615",
                                     "--steps=12",
                                     "--size",
                                     "768x512",
                                     "a prompt",
                                     "--guidance=2.5",
                                     "--guidance_interval",
                                     "0.1,0.9",
                                     "--shift",
                                     "3",
                                     "--previews",
                                     "5",
                                     "--preview_method=vae",
                                     "--preview_size",
                                     "128",
                                     "--format",
                                     "webp",
                                     "--out=there",
                                     "--priority",
                                     "high",
                                     "--timeout",
                                     "1.5m",
                                     "--server",
                                     "unix:/x",
                                     "--quiet",
                                     "--json"});
  EXPECT_EQ(options.request.prompt, "a prompt");
  EXPECT_EQ(options.request.seed, 18446744073709551615u);
  EXPECT_EQ(options.request.num_steps, 12);
  EXPECT_EQ(options.request.size, std::pair(768, 512));
  EXPECT_EQ(options.request.guidance_scale, 2.5f);
  EXPECT_EQ(options.request.guidance_interval, std::pair(0.1f, 0.9f));
  EXPECT_EQ(options.request.timestep_shift, 3.0f);
  EXPECT_EQ(options.request.preview_every_steps, 5);
  EXPECT_EQ(options.request.preview_kind, PreviewKind::kVae);
  EXPECT_EQ(options.request.preview_max_side, 128);
  EXPECT_EQ(options.request.output_format, PictureFormat::kWebp);
  EXPECT_EQ(options.request.priority, RequestPriority::kHigh);
  EXPECT_EQ(options.request.timeout, absl::Seconds(90));
  EXPECT_EQ(options.out_dir, "there");
  EXPECT_EQ(options.client.server, "unix:/x");
  EXPECT_TRUE(options.quiet);
  EXPECT_TRUE(options.json);
}

TEST(CliOptionsTest, ConnectionsAreSaidAlikeForEveryCommand) {
  for (const char* command : {"info", "status", "watch"}) {
    const CliOptions options =
        Parsed({command, "--endpoint=h:1", "--tls", "--tls_ca", "ca.pem", "--tls_cert=c.pem",
                "--tls_key=k.pem", "--tls_server_name", "name", "--token_file=t"});
    EXPECT_EQ(options.client.server, "h:1");
    EXPECT_TRUE(options.client.tls);
    EXPECT_EQ(options.client.tls_files.ca, "ca.pem");
    EXPECT_EQ(options.client.tls_files.cert, "c.pem");
    EXPECT_EQ(options.client.tls_files.key, "k.pem");
    EXPECT_EQ(options.client.tls_server_name, "name");
    EXPECT_EQ(options.token_path, "t");
    EXPECT_EQ(options.client.token, "");  // not read here
  }
}

TEST(CliOptionsTest, WatchHasItsOwnFlags) {
  const CliOptions options = Parsed({"watch", "--interval=500ms", "--count=3"});
  EXPECT_EQ(options.command, CliCommand::kWatch);
  EXPECT_EQ(options.interval, absl::Milliseconds(500));
  EXPECT_EQ(options.count, 3);
  EXPECT_FALSE(ParseCliArguments({"watch", "--interval=1ms"}).ok());
  EXPECT_FALSE(ParseCliArguments({"watch", "--count=-1"}).ok());
  EXPECT_FALSE(ParseCliArguments({"status", "--count=1"}).ok());
}

TEST(CliOptionsTest, BareTimeoutIsInSeconds) {
  EXPECT_EQ(Parsed({"info", "--timeout", "90"}).request.timeout, absl::Seconds(90));
}

TEST(CliOptionsTest, ShowAsksForPngPreviews) {
  const CliOptions plain = Parsed({"generate", "x", "--show"});
  EXPECT_TRUE(plain.show);
  EXPECT_EQ(plain.show_protocol, std::nullopt);
  EXPECT_EQ(plain.request.preview_every_steps, 5);
  EXPECT_EQ(plain.request.preview_format, PictureFormat::kPng);
  const CliOptions forced = Parsed({"generate", "--show=sixel", "x", "--previews", "2"});
  EXPECT_EQ(forced.show_protocol, InlineProtocol::kSixel);
  EXPECT_EQ(forced.request.preview_every_steps, 2);
}

TEST(CliOptionsTest, DoubleDashEndsTheFlags) {
  EXPECT_EQ(Parsed({"generate", "--seed", "1", "--", "--seed"}).request.prompt, "--seed");
}

TEST(CliOptionsTest, EditsTakeAPictureAndAnInstruction) {
  const CliOptions options = Parsed({"edit", "a.png", "make it blue", "--resolution=512", "--sampler=dpmpp",
                                     "--sample_condition", "--seed=3"});
  EXPECT_EQ(options.command, CliCommand::kEdit);
  EXPECT_EQ(options.image_path, "a.png");
  EXPECT_EQ(options.request.prompt, "make it blue");
  EXPECT_EQ(options.request.resolution, InputResolution::kImage512);
  EXPECT_EQ(options.request.sampler, RequestSampler::kDpmpp2m);
  EXPECT_TRUE(options.request.sample_condition);
  EXPECT_EQ(options.request.seed, 3u);
  EXPECT_THAT(Error({"edit", "a.png"}), HasSubstr("needs a picture and an instruction"));
  EXPECT_THAT(Error({"edit", "a.png", "make", "it"}), HasSubstr("put the instruction in quotes"));
  EXPECT_THAT(Error({"edit", "a.png", "x", "--temperature=1"}), HasSubstr("belongs to describe"));
  EXPECT_THAT(Error({"edit", "a.png", "x", "--resolution=100"}), HasSubstr("256, 512, 768"));
}

TEST(CliOptionsTest, DescriptionsTakeAPictureAndPerhapsAQuestion) {
  EXPECT_EQ(Parsed({"describe", "a.png"}).description.question, std::nullopt);
  const CliOptions options = Parsed({"describe", "a.png", "what?", "--system=Be brief.", "--max_tokens=40",
                                     "--temperature=0.5", "--seed=3", "--priority=low", "--timeout=5"});
  EXPECT_EQ(options.command, CliCommand::kDescribe);
  EXPECT_EQ(options.description.question, "what?");
  EXPECT_EQ(options.description.system_prompt, "Be brief.");
  EXPECT_EQ(options.description.max_new_tokens, 40);
  EXPECT_EQ(options.description.temperature, 0.5f);
  EXPECT_EQ(options.description.seed, 3u);
  EXPECT_EQ(options.description.priority, RequestPriority::kLow);
  EXPECT_EQ(options.description.timeout, absl::Seconds(5));
  EXPECT_THAT(Error({"describe"}), HasSubstr("needs a picture"));
  EXPECT_THAT(Error({"describe", "a.png", "what", "is"}), HasSubstr("put the question in quotes"));
  EXPECT_THAT(Error({"describe", "a.png", "--steps=3"}), HasSubstr("--steps belongs to generate and edit"));
}

TEST(CliOptionsTest, ExplainsWhatIsWrong) {
  EXPECT_THAT(Error({}), HasSubstr("no command"));
  EXPECT_THAT(Error({"draw", "x"}), HasSubstr("unknown command \"draw\""));
  EXPECT_THAT(Error({"generate"}), HasSubstr("needs a prompt"));
  EXPECT_THAT(Error({"generate", "a", "rocket"}), HasSubstr("put the prompt in quotes"));
  EXPECT_THAT(Error({"generate", "x", "--sede", "1"}), HasSubstr("did you mean --seed?"));
  EXPECT_THAT(Error({"generate", "x", "--prev", "1"}), HasSubstr("did you mean --preview"));
  EXPECT_THAT(Error({"generate", "x", "--zzzzzzzz"}), HasSubstr("unknown flag --zzzzzzzz; lancet --help"));
  EXPECT_THAT(Error({"generate", "x", "-seed", "1"}), HasSubstr("did you mean --seed?"));
  EXPECT_THAT(Error({"generate", "x", "--seed"}), HasSubstr("--seed needs a value"));
  EXPECT_THAT(Error({"generate", "x", "--seed=-1"}), HasSubstr("--seed is \"-1\"; expected a number from 0"));
  EXPECT_THAT(Error({"generate", "x", "--size", "768"}),
              HasSubstr("--size is \"768\"; expected width x height"));
  EXPECT_THAT(Error({"generate", "x", "--format=bmp"}), HasSubstr("expected png, jpeg or webp"));
  EXPECT_THAT(Error({"generate", "x", "--timeout=0"}), HasSubstr("expected a time above 0"));
  EXPECT_THAT(Error({"generate", "x", "--quiet=yes"}), HasSubstr("--quiet takes no value"));
  EXPECT_THAT(Error({"generate", "x", "--show=ascii"}), HasSubstr("kitty, iterm2 or sixel"));
  EXPECT_THAT(Error({"info", "--steps", "3"}), HasSubstr("--steps belongs to generate"));
  EXPECT_THAT(Error({"info", "x"}), HasSubstr("info takes no argument"));
}

TEST(CliOptionsTest, HelpNamesEveryFlagAndExitCode) {
  const CliOptions options = Parsed({"generate", "--help"});
  EXPECT_EQ(options.command, CliCommand::kHelp);
  const std::string help = CliHelp(options.help_topic);
  for (const char* flag : {"--seed", "--steps", "--size", "--guidance", "--guidance_interval", "--shift",
                           "--previews", "--preview_method", "--format", "--out", "--server", "--priority",
                           "--timeout", "--show", "--quiet", "--json"}) {
    EXPECT_THAT(help, HasSubstr(flag));
  }
  EXPECT_THAT(help, HasSubstr("6 the server's queue is full"));
  EXPECT_THAT(CliHelp(CliCommand::kInfo), testing::Not(HasSubstr("--seed")));
  EXPECT_THAT(CliHelp(CliCommand::kEdit), HasSubstr("--sample_condition"));
  EXPECT_THAT(CliHelp(CliCommand::kDescribe), HasSubstr("--max_tokens"));
  EXPECT_THAT(CliHelp(CliCommand::kDescribe), testing::Not(HasSubstr("--steps")));
}

}  // namespace
}  // namespace lancet

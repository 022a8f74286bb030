// lancet-fit-preview: finds the linear map from latents to colours that fast previews use, for one
// checkpoint, and writes it into its lancet.json.
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/checkpoint.h"
#include "common/checkpoint_flags.h"
#include "common/program_flags.h"
#include "common/status_macros.h"
#include "kernels/kernel_context.h"
#include "tools/fit_preview/card_file.h"
#include "tools/fit_preview/sample_pictures.h"
#include "worker/engine/latent_preview.h"
#include "worker/model/vae/vae_decoder.h"

ABSL_FLAG(std::string, prompts, "",
          "file of prompts to draw and fit to, one a line; default: a built-in list");
ABSL_FLAG(bool, random, false,
          "fit to made-up latents instead: needs no prompts and little time, and is worse");
ABSL_FLAG(int, steps, 30, "denoise steps per picture, 3 to 1000");
ABSL_FLAG(int, side, 0,
          "pictures of side x side pixels, a multiple of 16 up to 1024; 0: the checkpoint's default size");
ABSL_FLAG(int, threads, 1, "compute threads");
ABSL_FLAG(std::string, out, "", "file to write; default: the checkpoint's lancet.json");

namespace lancet {
namespace {

constexpr char kUsage[] =
    R"(fits the colours of fast previews (LATENT_RGB) against a checkpoint's decoder.

  lancet-fit-preview --model_dir models/demo                     draws a list of prompts and fits to them
  lancet-fit-preview --model_dir DIR --prompts prompts.txt       the same for prompts that suit the model
  lancet-fit-preview --model_dir DIR --random --out card.json    from the decoder alone

Prints how much of the colours' variance the fit explains (R^2) and its error (RMSE, of [-1, 1]), also for every
fourth picture after a fit to the others. Writes "latent_rgb" of lancet.json and keeps its other fields.)";

// Every fourth picture tests a fit to the others.
constexpr size_t kTestEvery = 4;

std::vector<std::string> BuiltInPrompts() {
  return {"a red apple on a white background",
          "a blue circle, on a yellow background",
          "a panda in the top left, a rocket in the top right, on a light blue background",
          "a green tree and a brown horse, on a grey background",
          "a sunflower, on a black background",
          "a pink pig, a yellow chick and a white rabbit",
          "an orange cat, on a purple background",
          "a red car next to a blue car, on a green background",
          "a snowman, on a blue background",
          "a slice of cake and a cup of coffee, on a pink background",
          "a purple heart in the centre, on an orange background",
          "a green frog above a red rose",
          "a house, a tree and a yellow sun, on a light green background",
          "a black bat, on a red background",
          "a rainbow, on a white background",
          "a polar bear on the left, a penguin on the right, on a brown background",
          "a fire, on a black background",
          "a banana, an orange, a strawberry and a kiwi",
          "a tropical fish and an octopus, on a blue background",
          "a gift, a balloon and a cake, on a yellow background",
          "a ghost, on a purple background",
          "an elephant, on a light green background",
          "a red mushroom and a snail, on a grey background",
          "a robot on the left, an alien on the right, on an orange background"};
}

absl::StatusOr<std::vector<std::string>> ReadPrompts(const std::string& path) {
  if (path.empty()) return BuiltInPrompts();
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(absl::StrCat("--prompts ", path, ": cannot be opened"));
  std::vector<std::string> prompts;
  for (std::string line; std::getline(in, line);) {
    absl::StripAsciiWhitespace(&line);
    if (!line.empty()) prompts.push_back(line);
  }
  if (prompts.size() < kTestEvery) {
    return absl::InvalidArgumentError(absl::StrCat("--prompts ", path, ": ", prompts.size(),
                                                   " prompts; at least ", kTestEvery, " are needed"));
  }
  return prompts;
}

void Print(const std::string& what, const LatentRgbQuality& quality) {
  std::cout << absl::StrFormat("%-46s R^2 %.4f, RMSE %.4f\n", what, quality.r2, quality.rmse);
}

absl::StatusOr<LatentRgb> FitToPictures(const Checkpoint& checkpoint, const SampleOptions& options,
                                        const KernelContext& ctx, VaeDecoder& decoder) {
  LANCET_ASSIGN_OR_RETURN(const std::vector<LatentColours> pictures,
                          SamplePictures(checkpoint, options, ctx, decoder, [&](size_t p) {
                            std::cerr << "picture " << p + 1 << " of " << options.prompts.size() << "\n";
                          }));
  LatentColours all;
  LatentColours tested;
  LatentColours others;
  for (size_t p = 0; p < pictures.size(); ++p) {
    all.Append(pictures[p]);
    (p % kTestEvery == kTestEvery - 1 ? tested : others).Append(pictures[p]);
  }
  LANCET_ASSIGN_OR_RETURN(const LatentRgbFit random, FitLatentRgbFromDecoder(ctx, decoder));
  LANCET_ASSIGN_OR_RETURN(const LatentRgbQuality by_random,
                          MeasureLatentRgb(random.map, all.latents_view(), all.colours_view()));
  LANCET_ASSIGN_OR_RETURN(const LatentRgbFit partial,
                          FitLatentRgb(others.latents_view(), others.colours_view()));
  LANCET_ASSIGN_OR_RETURN(const LatentRgbQuality on_tested,
                          MeasureLatentRgb(partial.map, tested.latents_view(), tested.colours_view()));
  LANCET_ASSIGN_OR_RETURN(const LatentRgbFit fit, FitLatentRgb(all.latents_view(), all.colours_view()));
  Print("these pictures by a fit to made-up latents:", by_random);
  Print("every fourth picture by a fit to the others:", on_tested);
  Print("all pictures by a fit to all (written):", fit.quality);
  return fit.map;
}

absl::Status Run() {
  const int steps = absl::GetFlag(FLAGS_steps);
  const int side = absl::GetFlag(FLAGS_side);
  if (steps < 3 || steps > 1000)
    return absl::InvalidArgumentError(absl::StrCat("--steps ", steps, ": 3 to 1000"));
  if (side < 0 || side > 1024 || side % kPixelsPerLatent != 0) {
    return absl::InvalidArgumentError(absl::StrCat("--side ", side, ": a multiple of 16 up to 1024"));
  }
  LANCET_ASSIGN_OR_RETURN(const std::vector<std::string> prompts, ReadPrompts(absl::GetFlag(FLAGS_prompts)));
  LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(CheckpointPathsFromFlags()));
  LANCET_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(paths));
  const CardSize size = side > 0 ? CardSize{side, side} : checkpoint->card().default_size;
  std::string out = absl::GetFlag(FLAGS_out);
  if (out.empty()) out = paths.lancet_json.empty() ? paths.model_dir + "/lancet.json" : paths.lancet_json;

  CpuOptions cpu;
  cpu.threads = absl::GetFlag(FLAGS_threads);
  LANCET_ASSIGN_OR_RETURN(const auto ctx, KernelContext::CreateCpu(cpu));
  ctx->BindCallingThread();
  VaeDecoderOptions decoder_options;
  decoder_options.max_latents = int64_t{size.width / kPixelsPerLatent} * (size.height / kPixelsPerLatent);
  LANCET_ASSIGN_OR_RETURN(const auto decoder, VaeDecoder::Load(*ctx, checkpoint->vae(), decoder_options));
  LatentRgb map;
  if (absl::GetFlag(FLAGS_random)) {
    LANCET_ASSIGN_OR_RETURN(const LatentRgbFit fit, FitLatentRgbFromDecoder(*ctx, *decoder));
    Print("made-up latents by a fit to them (written):", fit.quality);
    map = fit.map;
  } else {
    LANCET_ASSIGN_OR_RETURN(map,
                            FitToPictures(*checkpoint, {prompts, size, steps, cpu.threads}, *ctx, *decoder));
  }
  LANCET_RETURN_IF_ERROR(WriteLatentRgb(out, map));
  std::cout << "written: " << out << "\n";
  return absl::OkStatus();
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  lancet::ParseProgramFlags(argc, argv, lancet::kUsage);
  if (const absl::Status status = lancet::Run(); !status.ok()) {
    std::cerr << "lancet-fit-preview: " << status.message() << "\n";
    return 1;
  }
  return 0;
}

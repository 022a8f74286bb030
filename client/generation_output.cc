#include "client/generation_output.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/progress.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"

namespace lancet {
namespace {

using Json = nlohmann::ordered_json;

void PrintJson(std::ostream& out, const Json& json) {
  // Server text may hold anything; invalid UTF-8 is replaced rather than fatal.
  out << json.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
}

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

}  // namespace

GenerationOutput::GenerationOutput(OutputOptions options, std::ostream& out, std::ostream& err)
    : options_(std::move(options)), out_(out), err_(err) {}

void GenerationOutput::OnQueued(const QueuedInfo& queued) {
  if (options_.json) {
    Json json = {{"event", "queued"}, {"position", queued.position}};
    if (queued.estimated_wait.has_value()) json["estimated_wait_seconds"] = Seconds(*queued.estimated_wait);
    PrintJson(out_, json);
  }
  const std::string wait = queued.estimated_wait.has_value()
                               ? absl::StrCat(", about ", FormatSeconds(*queued.estimated_wait), " to wait")
                               : "";
  Say(absl::StrCat("queued, ", queued.position, " ahead", wait));
}

void GenerationOutput::OnStarted(const StartedInfo& started) {
  total_steps_ = started.num_steps;
  if (options_.json) {
    PrintJson(out_, {{"event", "started"},
                     {"request_id", started.request_id},
                     {"seed", started.seed},
                     {"width", started.width},
                     {"height", started.height},
                     {"steps", started.num_steps},
                     {"warnings", started.warnings}});
  }
  Say(absl::StrCat("started: ", started.width, "x", started.height, ", ", started.num_steps, " steps, seed ",
                   started.seed));
  for (const std::string& warning : started.warnings) Say(absl::StrCat("warning: ", warning));
}

void GenerationOutput::OnProgress(const ProgressInfo& progress) {
  if (options_.json) {
    PrintJson(out_, {{"event", "progress"},
                     {"step", progress.step},
                     {"total_steps", progress.total_steps},
                     {"elapsed_seconds", Seconds(progress.elapsed)},
                     {"estimated_remaining_seconds", Seconds(progress.estimated_remaining)}});
  }
  if (options_.quiet) return;
  if (!options_.bar) {
    if (IsMilestone(progress)) Say(ProgressLine(progress));
    return;
  }
  // Back to the start of the line, and clear what a longer bar left.
  err_ << "\r" << ProgressBar(progress, options_.columns - 1) << "\x1b[K" << std::flush;
  bar_open_ = true;
}

void GenerationOutput::OnPreview(const PreviewInfo& preview) {
  // As many digits as the last step has, at least two, so that names sort.
  const int digits = std::max<int>(2, static_cast<int>(std::to_string(total_steps_).size()));
  const std::string name = absl::StrFormat("preview_%0*d", digits, preview.step);
  const absl::StatusOr<std::string> path = WritePicture(name, preview.image);
  if (!path.ok()) {
    preview_status_.Update(path.status());
    return;
  }
  if (options_.json) {
    PrintJson(out_, {{"event", "preview"}, {"step", preview.step}, {"path", *path}});
  }
  if (options_.show.has_value()) {
    Show(preview.image);
  } else if (!options_.bar) {
    Say(absl::StrCat("preview: ", *path));
  }
}

void GenerationOutput::EndBar() {
  if (!bar_open_) return;
  err_ << std::endl;
  bar_open_ = false;
}

absl::Status GenerationOutput::Finish(const GenerationResult& result) {
  EndBar();
  LANCET_ASSIGN_OR_RETURN(const std::string path, WritePicture("result", result.image));
  if (options_.show.has_value()) Show(result.image);
  LANCET_RETURN_IF_ERROR(preview_status_);
  const GenerationTimings& t = result.timings;
  if (options_.json) {
    PrintJson(out_, {{"event", "result"},
                     {"path", path},
                     {"width", result.image.width},
                     {"height", result.image.height},
                     {"seed", result.seed},
                     {"model_fingerprint", result.model_fingerprint},
                     {"timings_seconds",
                      {{"queue", Seconds(t.queue)},
                       {"prefill", Seconds(t.prefill)},
                       {"denoise", Seconds(t.denoise)},
                       {"decode", Seconds(t.decode)},
                       {"encode", Seconds(t.encode)},
                       {"total", Seconds(t.total)}}}});
    return absl::OkStatus();
  }
  out_ << "seed: " << result.seed << "\n"
       << "size: " << result.image.width << "x" << result.image.height << "\n"
       << "timings: queue " << FormatSeconds(t.queue) << ", prefill " << FormatSeconds(t.prefill)
       << ", denoise " << FormatSeconds(t.denoise) << ", decode " << FormatSeconds(t.decode) << ", encode "
       << FormatSeconds(t.encode) << ", total " << FormatSeconds(t.total) << "\n"
       << "result: " << path << std::endl;
  return absl::OkStatus();
}

absl::StatusOr<std::string> GenerationOutput::WritePicture(const std::string& name,
                                                           const PictureFile& image) {
  const std::filesystem::path path =
      std::filesystem::path(options_.out_dir) / absl::StrCat(name, ".", FileExtension(image.format));
  const std::filesystem::path temporary = path.string() + ".part";
  {
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    file.write(image.data.data(), static_cast<std::streamsize>(image.data.size()));
    file.close();
    if (!file) return absl::UnknownError(absl::StrCat("cannot write ", temporary.string()));
  }
  std::error_code error;
  std::filesystem::rename(temporary, path, error);
  if (error)
    return absl::UnknownError(absl::StrCat("cannot rename to ", path.string(), ": ", error.message()));
  return path.string();
}

void GenerationOutput::Show(const PictureFile& image) {
  EndBar();
  // iTerm2 draws any format, the others need PNG.
  if (image.format != PictureFormat::kPng && options_.show != InlineProtocol::kIterm2) {
    err_ << "(not shown: this terminal draws PNG only)" << std::endl;
    return;
  }
  const absl::StatusOr<std::string> drawn = InlineImage(image.data, *options_.show);
  if (drawn.ok()) {
    err_ << *drawn << std::flush;
  } else {
    err_ << "(not shown: " << drawn.status().message() << ")" << std::endl;
  }
}

void GenerationOutput::Say(const std::string& line) {
  if (options_.quiet) return;
  EndBar();
  err_ << line << std::endl;
}

}  // namespace lancet

#include "client/description_output.h"

#include "client/progress.h"
#include "nlohmann/json.hpp"

namespace lancet {
namespace {

using Json = nlohmann::ordered_json;

void PrintJson(std::ostream& out, const Json& json) {
  out << json.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
}

}  // namespace

DescriptionOutput::DescriptionOutput(DescriptionOutputOptions options, std::ostream& out, std::ostream& err)
    : options_(options), out_(out), err_(err) {}

void DescriptionOutput::OnQueued(const QueuedInfo& queued) {
  if (options_.json) PrintJson(out_, {{"event", "queued"}, {"position", queued.position}});
  if (!options_.quiet) err_ << "queued, " << queued.position << " ahead" << std::endl;
}

void DescriptionOutput::OnStarted(const StartedInfo& started) {
  if (!options_.json) return;
  PrintJson(out_, {{"event", "started"}, {"request_id", started.request_id}, {"seed", started.seed}});
}

void DescriptionOutput::OnDelta(absl::string_view text) {
  if (options_.json) {
    PrintJson(out_, {{"event", "delta"}, {"text", std::string(text)}});
    return;
  }
  out_ << text << std::flush;
  line_open_ = true;
}

void DescriptionOutput::EndLine() {
  if (line_open_) out_ << std::endl;
  line_open_ = false;
}

void DescriptionOutput::Finish(const DescriptionResult& result) {
  EndLine();
  if (options_.json) {
    PrintJson(out_, {{"event", "result"},
                     {"text", result.text},
                     {"finish_reason", result.cut ? "length" : "stop"},
                     {"prompt_tokens", result.prompt_tokens},
                     {"answer_tokens", result.answer_tokens},
                     {"seed", result.seed},
                     {"model_fingerprint", result.model_fingerprint},
                     {"total_seconds", absl::ToDoubleSeconds(result.timings.total)}});
  }
  if (options_.quiet) return;
  err_ << result.answer_tokens << " tokens in " << FormatSeconds(result.timings.total)
       << (result.cut ? "; cut, --max_tokens allows more" : "") << std::endl;
}

}  // namespace lancet

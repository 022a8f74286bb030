#include "client/status_output.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace lancet {
namespace {

std::string Age(absl::Duration age) { return absl::FormatDuration(absl::Trunc(age, absl::Seconds(1))); }

// A server's text on a terminal: control characters would be commands there.
std::string Printable(std::string text) {
  for (char& c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = ' ';
  }
  return text;
}

void AppendGroup(const ServerStatus::Group& group, std::string& text) {
  const auto there = std::count(group.rank_connected.begin(), group.rank_connected.end(), true);
  absl::StrAppendFormat(&text, "group %s: %s, %d of %d ranks, %d requests, cache %d of %d tokens, %s\n",
                        Printable(group.name), group.state, there, group.rank_connected.size(),
                        group.active_requests, group.cache_tokens, group.max_cache_tokens,
                        Printable(group.device));
}

}  // namespace

std::string StatusText(const ServerStatus& status, size_t max_errors) {
  std::string text = absl::StrFormat(
      "%s, version %s, up %s%s\nqueue: %d of %d, running: %d, calls: %d\nrequests: %d succeeded, %d failed\n",
      Printable(status.model), Printable(status.server_version), Age(status.uptime),
      status.draining ? ", draining" : "", status.waiting, status.max_queue, status.running, status.calls,
      status.requests_succeeded, status.requests_failed);
  if (status.groups.empty()) text += "no group of workers\n";
  for (const ServerStatus::Group& group : status.groups) AppendGroup(group, text);
  for (size_t i = 0; i < std::min(max_errors, status.recent_errors.size()); ++i) {
    const ServerStatus::Error& error = status.recent_errors[i];
    absl::StrAppendFormat(&text, "error %s ago: %s %s%s: %s: %s\n", Age(error.age), error.task,
                          error.request_id,
                          error.token.empty() ? "" : absl::StrCat(" of ", Printable(error.token)), error.code,
                          Printable(error.message));
  }
  return text;
}

std::string StatusJson(const ServerStatus& status) {
  nlohmann::ordered_json json = {{"model", status.model},
                                 {"server_version", status.server_version},
                                 {"uptime_s", absl::ToDoubleSeconds(status.uptime)},
                                 {"draining", status.draining},
                                 {"waiting", status.waiting},
                                 {"max_queue", status.max_queue},
                                 {"running", status.running},
                                 {"calls", status.calls},
                                 {"requests_succeeded", status.requests_succeeded},
                                 {"requests_failed", status.requests_failed},
                                 {"groups", nlohmann::ordered_json::array()},
                                 {"recent_errors", nlohmann::ordered_json::array()}};
  for (const ServerStatus::Group& group : status.groups) {
    json["groups"].push_back({{"name", group.name},
                              {"state", group.state},
                              {"active_requests", group.active_requests},
                              {"device", group.device},
                              {"rank_connected", group.rank_connected},
                              {"cache_tokens", group.cache_tokens},
                              {"max_cache_tokens", group.max_cache_tokens}});
  }
  for (const ServerStatus::Error& error : status.recent_errors) {
    json["recent_errors"].push_back({{"request_id", error.request_id},
                                     {"age_s", absl::ToDoubleSeconds(error.age)},
                                     {"task", error.task},
                                     {"code", error.code},
                                     {"message", error.message},
                                     {"token", error.token}});
  }
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace lancet

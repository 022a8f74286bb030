// A server's status for people and for scripts.
#pragma once

#include <string>

#include "client/status_client.h"

namespace lancet {

// A few lines; `max_errors` of the recent errors.
std::string StatusText(const ServerStatus& status, size_t max_errors);
// One JSON object without a newline.
std::string StatusJson(const ServerStatus& status);

}  // namespace lancet

// Parsing of a program's command line, alike in every program of ours.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lancet {

// Parses flags by absl::ParseCommandLine and returns the other arguments, without the program's name. --help
// prints `usage` and every flag of ours, whatever file defines it (Abseil by itself shows only those of a
// file that is named like the program); a flag that does not exist ends the program with status 1. Call once,
// first.
std::vector<std::string> ParseProgramFlags(int argc, char** argv, absl::string_view usage);

}  // namespace lancet

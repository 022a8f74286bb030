// Inspections as text for people and as JSON for programs.
#pragma once

#include <string>

#include "tools/inspect/inspection.h"

namespace lancet {

struct ReportOptions {
  bool json = false;
  bool list_tensors = false;  // every tensor with element type and shape
};

// Ends with a newline.
std::string Report(const FileInspection& file, const ReportOptions& options);
std::string Report(const CheckpointInspection& checkpoint, const ReportOptions& options);

}  // namespace lancet

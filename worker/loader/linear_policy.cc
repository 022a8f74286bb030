#include "worker/loader/linear_policy.h"

#include <algorithm>
#include <bit>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/glob.h"
#include "common/logging.h"
#include "common/mapped_file.h"
#include "common/quote.h"
#include "common/status_macros.h"
#include "common/trunk_layout.h"

namespace lancet {
namespace {

constexpr size_t kMaxPatterns = 64;
constexpr size_t kMaxPatternBytes = 256;
constexpr absl::string_view kNoFactors = "none";

absl::StatusOr<absl::flat_hash_set<std::string>> MatchingLinears(const std::vector<std::string>& patterns,
                                                                 const std::vector<std::string>& linears) {
  if (patterns.size() > kMaxPatterns) {
    return absl::InvalidArgumentError(absl::StrCat("bf16_linears has ", patterns.size(),
                                                   " patterns; at most ", kMaxPatterns, " are taken"));
  }
  absl::flat_hash_set<std::string> matching;
  for (const std::string& pattern : patterns) {
    if (pattern.size() > kMaxPatternBytes) {
      return absl::InvalidArgumentError(absl::StrCat("bf16_linears: pattern ", Quote(pattern), " has ",
                                                     pattern.size(), " bytes; at most ", kMaxPatternBytes,
                                                     " are taken"));
    }
    bool found = false;
    for (const std::string& linear : linears) {
      if (!GlobMatches(pattern, linear)) continue;
      found = true;
      matching.insert(linear);
    }
    if (!found) {
      return absl::InvalidArgumentError(absl::StrCat("bf16_linears: pattern ", Quote(pattern),
                                                     " matches no Linear; names are such as ",
                                                     linears.front()));
    }
  }
  return matching;
}

// The file that the option means; empty if there is none.
std::string FactorsPath(const Checkpoint& checkpoint, const std::string& option) {
  if (option == kNoFactors) return "";
  if (!option.empty()) return option;
  const std::filesystem::path beside =
      std::filesystem::path(checkpoint.paths().trunk).parent_path() / kActivationFactorsFile;
  std::error_code error;
  return std::filesystem::is_regular_file(beside, error) ? beside.string() : "";
}

}  // namespace

absl::StatusOr<LinearMode> ParseLinearMode(absl::string_view name, bool on_cuda) {
  for (const LinearMode mode :
       {LinearMode::kW4A16, LinearMode::kW4A8Fp8, LinearMode::kW4A8Int8, LinearMode::kW4A4}) {
    if (name == LinearModeName(mode) && !(on_cuda && mode == LinearMode::kW4A8Int8)) return mode;
  }
  if (name == "w4a8") return on_cuda ? LinearMode::kW4A8Fp8 : LinearMode::kW4A8Int8;
  return absl::InvalidArgumentError(
      absl::StrCat("linear mode is ", Quote(name), "; expected w4a16, w4a8, w4a8_fp8",
                   on_cuda ? " or w4a4 on a CUDA device" : ", w4a8_int8 or w4a4"));
}

absl::string_view LinearModeName(LinearMode mode) {
  switch (mode) {
    case LinearMode::kW4A16:
      return "w4a16";
    case LinearMode::kW4A8Fp8:
      return "w4a8_fp8";
    case LinearMode::kW4A8Int8:
      return "w4a8_int8";
    case LinearMode::kW4A4:
      break;
  }
  return "w4a4";
}

absl::StatusOr<bool> ParseBlockScales(absl::string_view name) {
  if (name == "bf16" || name == "e4m3") return name == "e4m3";
  return absl::InvalidArgumentError(
      absl::StrCat("block scales are ", Quote(name), "; expected bf16 or e4m3"));
}

absl::StatusOr<HeadForm> ParseHeadForm(absl::string_view name) {
  for (const HeadForm form : {HeadForm::kBf16, HeadForm::kInt8}) {
    if (name == HeadFormName(form)) return form;
  }
  return absl::InvalidArgumentError(absl::StrCat("head is ", Quote(name), "; expected bf16 or int8"));
}

absl::string_view HeadFormName(HeadForm form) { return form == HeadForm::kBf16 ? "bf16" : "int8"; }

absl::StatusOr<LinearPolicy> LinearPolicy::Create(const Checkpoint& checkpoint,
                                                  const LinearPolicyOptions& options) {
  LinearPolicy policy;
  policy.mode_ = options.mode;
  policy.head_ = options.head;
  policy.e4m3_scales_ = options.e4m3_scales;
  if (options.e4m3_scales && options.mode != LinearMode::kW4A8Int8) {
    return absl::InvalidArgumentError(absl::StrCat("E4M3 block scales are of w4a8_int8; the linear mode is ",
                                                   LinearModeName(options.mode)));
  }
  std::vector<std::string> linears;
  for (const TrunkLinear& linear : TrunkLinears(checkpoint.config())) linears.push_back(linear.base);
  LANCET_ASSIGN_OR_RETURN(policy.bf16_, MatchingLinears(options.bf16_linears, linears));
  if (options.mode != LinearMode::kW4A4) return policy;
  policy.weight_factors_ = checkpoint.trunk_meta().scale_factors;
  const std::string path = FactorsPath(checkpoint, options.activation_factors);
  if (path.empty()) return policy;
  linears.erase(
      std::remove_if(linears.begin(), linears.end(),
                     [&](const std::string& linear) { return IsUnquantised(checkpoint.trunk(), linear); }),
      linears.end());
  LANCET_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxActivationFactorsBytes));
  LANCET_ASSIGN_OR_RETURN(policy.factors_,
                          ParseActivationFactors(text, path, checkpoint.fingerprint(), linears));
  LogInfo("activation factors read", {{"path", path}});
  return policy;
}

LinearPolicy LinearPolicy::Uniform(LinearMode mode, HeadForm head, bool e4m3_scales) {
  LinearPolicy policy;
  policy.mode_ = mode;
  policy.head_ = head;
  policy.e4m3_scales_ = e4m3_scales;
  return policy;
}

bool LinearPolicy::StaysBf16(absl::Span<const std::string> bases) const {
  return std::any_of(bases.begin(), bases.end(),
                     [&](const std::string& base) { return bf16_.contains(base); });
}

float LinearPolicy::ActivationFactor(absl::Span<const std::string> bases) const {
  float largest = 0.0f;
  for (const std::string& base : bases) {
    const auto found = factors_.find(base);
    if (found != factors_.end()) largest = std::max(largest, found->second);
  }
  return largest > 0.0f ? largest : 1.0f;
}

float LinearPolicy::WeightFactor(absl::Span<const std::string> bases) const {
  float largest = 0.0f;
  for (const std::string& base : bases) {
    const auto found = weight_factors_.find(base);
    if (found == weight_factors_.end()) return 0.0f;
    largest = std::max(largest, found->second);
  }
  return largest;
}

std::string LinearPolicy::Numerics() const {
  std::vector<std::string> parts(bf16_.begin(), bf16_.end());
  for (const auto& [name, factor] : factors_) {
    parts.push_back(absl::StrCat(name, "=", absl::Hex(std::bit_cast<uint32_t>(factor))));
  }
  // Of the meta file, which the checkpoint's fingerprint does not cover.
  for (const auto& [name, factor] : weight_factors_) {
    parts.push_back(absl::StrCat(name, "/", absl::Hex(std::bit_cast<uint32_t>(factor))));
  }
  const std::string scales = e4m3_scales_ ? " e4m3" : "";
  const std::string head = head_ == HeadForm::kBf16 ? "" : absl::StrCat(" head ", HeadFormName(head_));
  if (mode_ == LinearMode::kW4A16 || parts.empty()) return absl::StrCat(LinearModeName(mode_), scales, head);
  std::sort(parts.begin(), parts.end());
  // FNV-1a: the same in every process.
  uint64_t digest = 0xcbf29ce484222325u;
  for (const std::string& part : parts) {
    for (const char c : part) digest = (digest ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    digest = (digest ^ 0xff) * 0x100000001b3u;
  }
  return absl::StrCat(LinearModeName(mode_), " ", absl::Hex(digest, absl::kZeroPad16), scales, head);
}

LinearChoice LinearPolicy::ChoiceOf(absl::Span<const std::string> bases) const {
  if (mode_ == LinearMode::kW4A16 || StaysBf16(bases)) return {};
  return {mode_, ActivationFactor(bases), WeightFactor(bases), e4m3_scales_};
}

}  // namespace lancet

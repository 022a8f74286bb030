#include "common/safetensors_header.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// More than any tensor has; bounds what a hostile header can make us hold.
constexpr size_t kMaxDimensions = 8;

std::optional<DType> DTypeFromName(absl::string_view name) {
  constexpr std::array kAll = {DType::kF64, DType::kF32, DType::kF16, DType::kBf16, DType::kI64,
                               DType::kI32, DType::kI16, DType::kI8,  DType::kU8,   DType::kBool};
  for (const DType dtype : kAll) {
    if (DTypeName(dtype) == name) return dtype;
  }
  return std::nullopt;
}

// Takes the token stream of a header and accepts nothing but its exact form, so no tree is built and depth is
// bounded.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<SafetensorsEntry> TakeEntries() { return std::move(entries_); }
  SafetensorsMetadata TakeMetadata() { return std::move(metadata_); }
  const std::string& error() const { return error_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return Unexpected(absl::StrCat("the negative number ", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", Quote(text)));
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShape) {
      if (entry_.shape.size() == kMaxDimensions) {
        return Fail(absl::StrCat("has more than ", kMaxDimensions, " dimensions"));
      }
      if (value > static_cast<uint64_t>(INT64_MAX)) return Fail(absl::StrCat("has extent ", value));
      entry_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (state_ == State::kOffsets) {
      if (num_offsets_ == 2) return Fail("has more than two data_offsets");
      (num_offsets_ == 0 ? entry_.begin : entry_.end) = value;
      ++num_offsets_;
      return true;
    }
    return Unexpected(absl::StrCat("the number ", value));
  }

  bool string(string_t& value) override {
    if (state_ == State::kMetadata) {
      metadata_[metadata_key_] = std::move(value);
      return true;
    }
    if (state_ != State::kDtype) return Unexpected("a string");
    const std::optional<DType> dtype = DTypeFromName(value);
    if (!dtype.has_value()) return Fail(absl::StrCat("has unsupported dtype ", Quote(value)));
    entry_.dtype = *dtype;
    state_ = State::kEntry;
    return true;
  }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::kStart:
        state_ = State::kTop;
        return true;
      case State::kEntryStart:
        state_ = State::kEntry;
        return true;
      case State::kMetadataStart:
        state_ = State::kMetadata;
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool end_object() override {
    if (state_ == State::kMetadata) {
      state_ = State::kTop;
    } else if (state_ == State::kEntry) {
      if (!has_dtype_ || !has_shape_ || !has_offsets_) {
        return Fail(
            absl::StrCat("has no ", !has_dtype_ ? "dtype" : (!has_shape_ ? "shape" : "data_offsets")));
      }
      entries_.push_back(std::move(entry_));
      state_ = State::kTop;
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ == State::kShapeStart) {
      state_ = State::kShape;
    } else if (state_ == State::kOffsetsStart) {
      state_ = State::kOffsets;
    } else {
      return Unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    if (state_ == State::kOffsets && num_offsets_ != 2) return Fail("has fewer than two data_offsets");
    state_ = State::kEntry;
    return true;
  }

  bool key(string_t& name) override {
    if (state_ == State::kTop) return BeginEntry(name);
    if (state_ == State::kMetadata) {
      metadata_key_ = name;
      if (metadata_.try_emplace(name).second) return true;
      error_ = absl::StrCat("key ", Quote(name), " of __metadata__ appears twice");
      return false;
    }
    if (state_ != State::kEntry) return Unexpected(absl::StrCat("the key ", Quote(name)));
    bool* seen = nullptr;
    if (name == "dtype") {
      seen = &has_dtype_;
      state_ = State::kDtype;
    } else if (name == "shape") {
      seen = &has_shape_;
      state_ = State::kShapeStart;
    } else if (name == "data_offsets") {
      seen = &has_offsets_;
      state_ = State::kOffsetsStart;
    } else {
      return Fail(absl::StrCat("has the unknown key ", Quote(name)));
    }
    if (*seen) return Fail(absl::StrCat("has the key ", Quote(name), " twice"));
    *seen = true;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    error_ = absl::StrCat("header is not valid JSON at its byte ", position);
    return false;
  }

 private:
  enum class State {
    kStart,
    kTop,
    kMetadataStart,
    kMetadata,
    kEntryStart,
    kEntry,
    kDtype,
    kShapeStart,
    kShape,
    kOffsetsStart,
    kOffsets,
  };

  bool BeginEntry(const std::string& name) {
    if (!names_.insert(name).second) {
      error_ = absl::StrCat("tensor ", Quote(name), " appears twice in the header");
      return false;
    }
    if (name == "__metadata__") {
      state_ = State::kMetadataStart;
      return true;
    }
    entry_ = SafetensorsEntry{};
    entry_.name = name;
    has_dtype_ = has_shape_ = has_offsets_ = false;
    num_offsets_ = 0;
    state_ = State::kEntryStart;
    return true;
  }

  // Inside an entry.
  bool Fail(absl::string_view what) {
    error_ = absl::StrCat("tensor ", Quote(entry_.name), " ", what);
    return false;
  }
  bool Unexpected(absl::string_view what) {
    const bool in_entry = state_ != State::kStart && state_ != State::kTop &&
                          state_ != State::kMetadataStart && state_ != State::kMetadata;
    if (in_entry) return Fail(absl::StrCat("has ", what, " where the format has none"));
    error_ = absl::StrCat("header has ", what, " where the format has none");
    return false;
  }

  State state_ = State::kStart;
  SafetensorsEntry entry_;
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
  int num_offsets_ = 0;
  absl::flat_hash_set<std::string> names_;
  SafetensorsMetadata metadata_;
  std::string metadata_key_;  // whose value comes next
  std::vector<SafetensorsEntry> entries_;
  std::string error_;
};

// Elements times element size must be what the offsets say.
absl::Status CheckSize(const SafetensorsEntry& entry, absl::string_view path) {
  int64_t bytes = static_cast<int64_t>(DTypeSize(entry.dtype));
  for (const int64_t extent : entry.shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", Quote(entry.name), " has shape ",
                                                     ShapeString(entry.shape), ", too large to exist"));
    }
  }
  if (entry.begin > entry.end) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", Quote(entry.name), " ends at byte ",
                                                   entry.end, ", before it begins at ", entry.begin));
  }
  if (entry.end - entry.begin != static_cast<uint64_t>(bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": tensor ", Quote(entry.name), " of ", DTypeName(entry.dtype), " ", ShapeString(entry.shape),
        " needs ", bytes, " bytes; its data_offsets hold ", entry.end - entry.begin));
  }
  return absl::OkStatus();
}

// `entries` are sorted by place.
absl::Status CheckTiling(const std::vector<SafetensorsEntry>& entries, uint64_t data_bytes,
                         absl::string_view path) {
  uint64_t expected = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != expected) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", Quote(entry.name), " begins at byte ", entry.begin,
                       " of the data; the one before it ends at ", expected,
                       entry.begin < expected ? " (they overlap)" : " (a hole)"));
    }
    expected = entry.end;
    if (expected > data_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", Quote(entry.name), " ends at byte ",
                                                     expected, " of the data; the file has ", data_bytes,
                                                     " (truncated?)"));
    }
  }
  if (expected != data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the tensors end at byte ", expected,
                                                   " of the data; the file has ", data_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(absl::string_view header,
                                                                     uint64_t data_bytes,
                                                                     absl::string_view path,
                                                                     SafetensorsMetadata* metadata) {
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(header.begin(), header.end(), &reader)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", reader.error()));
  }
  if (metadata != nullptr) *metadata = reader.TakeMetadata();
  std::vector<SafetensorsEntry> entries = reader.TakeEntries();
  for (const SafetensorsEntry& entry : entries) LANCET_RETURN_IF_ERROR(CheckSize(entry, path));
  std::sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  LANCET_RETURN_IF_ERROR(CheckTiling(entries, data_bytes, path));
  return entries;
}

}  // namespace lancet

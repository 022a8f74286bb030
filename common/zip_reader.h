// The members of a zip archive in memory: stored or deflated, with zip64, on one disk, unencrypted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lancet {

struct ZipMember {
  std::string name;
  bool deflated = false;
  uint32_t crc32 = 0;
  uint64_t size = 0;                // bytes when unpacked, as declared
  absl::Span<const std::byte> raw;  // bytes in the archive; equal to the content when not deflated
};

// Immutable after Parse. Members point into the archive's bytes.
class ZipArchive {
 public:
  // Reads and checks the directory and every member's local header: all within the archive, no two members
  // share bytes, no name twice. InvalidArgument begins with `path`.
  static absl::StatusOr<ZipArchive> Parse(absl::Span<const std::byte> bytes, absl::string_view path);

  const std::vector<ZipMember>& members() const { return members_; }
  // Null if there is none of that name.
  const ZipMember* Find(absl::string_view name) const;

 private:
  ZipArchive() = default;

  std::vector<ZipMember> members_;
  absl::flat_hash_map<std::string, size_t> index_;
};

// The content of a member: exactly `member.size` bytes, its CRC-32 checked. Never unpacks more than that.
// ResourceExhausted above `max_bytes` or without memory.
absl::StatusOr<std::unique_ptr<std::byte[]>> UnpackZipMember(const ZipMember& member, uint64_t max_bytes,
                                                             absl::string_view path);

}  // namespace lancet

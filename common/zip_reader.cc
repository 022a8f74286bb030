#include "common/zip_reader.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// A state dict of 2,400 tensors has as many members; more than this is no model.
constexpr uint64_t kMaxMembers = 100'000;

constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr uint32_t kCentralSignature = 0x02014b50;
constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50;
constexpr uint32_t kEnd64LocatorSignature = 0x07064b50;
constexpr uint64_t kLocalBytes = 30;
constexpr uint64_t kCentralBytes = 46;
constexpr uint64_t kEndBytes = 22;
constexpr uint64_t kEnd64Bytes = 56;
constexpr uint64_t kEnd64LocatorBytes = 20;
constexpr uint64_t kMaxCommentBytes = 65535;
constexpr uint16_t kZip64ExtraId = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // the real value stands in the zip64 record

class Parser {
 public:
  Parser(absl::Span<const std::byte> bytes, absl::string_view path) : bytes_(bytes), path_(path) {}

  absl::StatusOr<std::vector<ZipMember>> Run() {
    LANCET_RETURN_IF_ERROR(ReadEnd());
    std::vector<ZipMember> members;
    members.reserve(num_members_);
    uint64_t at = directory_begin_;
    for (uint64_t i = 0; i < num_members_; ++i) {
      LANCET_ASSIGN_OR_RETURN(ZipMember member, ReadCentral(at));
      members.push_back(std::move(member));
    }
    LANCET_RETURN_IF_ERROR(CheckDisjoint());
    return members;
  }

 private:
  // Callers have checked that [at, at + size of the number) is inside.
  uint64_t Number(uint64_t at, int num_bytes) const {
    uint64_t value = 0;
    for (int i = num_bytes - 1; i >= 0; --i) value = value << 8 | static_cast<uint64_t>(bytes_[at + i]);
    return value;
  }
  uint16_t U16(uint64_t at) const { return static_cast<uint16_t>(Number(at, 2)); }
  uint32_t U32(uint64_t at) const { return static_cast<uint32_t>(Number(at, 4)); }
  uint64_t U64(uint64_t at) const { return Number(at, 8); }
  bool Inside(uint64_t at, uint64_t size, uint64_t end) const { return at <= end && size <= end - at; }
  absl::string_view Text(uint64_t at, uint64_t size) const {
    return {reinterpret_cast<const char*>(bytes_.data()) + at, size};
  }
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": zip archive ", what));
  }

  // The end record stands at the end, before a comment of up to 64 kB.
  std::optional<uint64_t> FindEnd() const {
    if (bytes_.size() < kEndBytes) return std::nullopt;
    const uint64_t last = bytes_.size() - kEndBytes;
    const uint64_t first = last - std::min(last, kMaxCommentBytes);
    for (uint64_t at = last + 1; at-- > first;) {
      if (U32(at) == kEndSignature && at + kEndBytes + U16(at + 20) == bytes_.size()) return at;
    }
    return std::nullopt;
  }

  absl::Status ReadEnd() {
    const std::optional<uint64_t> end = FindEnd();
    if (!end.has_value()) return Error("has no directory at its end (truncated?)");
    uint64_t disks = uint64_t{U16(*end + 4)} | U16(*end + 6);
    num_members_ = U16(*end + 10);
    uint64_t directory_bytes = U32(*end + 12);
    directory_begin_ = U32(*end + 16);
    uint64_t limit = *end;
    if (*end >= kEnd64LocatorBytes && U32(*end - kEnd64LocatorBytes) == kEnd64LocatorSignature) {
      limit = *end - kEnd64LocatorBytes;
      const uint64_t end64 = U64(limit + 8);
      if (!Inside(end64, kEnd64Bytes, limit) || U32(end64) != kEnd64Signature) {
        return Error(absl::StrCat("says that its zip64 record is at byte ", end64, ", where none is"));
      }
      disks = uint64_t{U32(end64 + 16)} | U32(end64 + 20);
      num_members_ = U64(end64 + 32);
      directory_bytes = U64(end64 + 40);
      directory_begin_ = U64(end64 + 48);
      limit = end64;
    }
    if (disks != 0) return Error("spans several disks");
    if (num_members_ > kMaxMembers) {
      return Error(absl::StrCat("has ", num_members_, " members; the limit is ", kMaxMembers));
    }
    if (!Inside(directory_begin_, directory_bytes, limit)) {
      return Error(absl::StrCat("says that its directory of ", directory_bytes, " bytes is at byte ",
                                directory_begin_, ", which is outside"));
    }
    directory_end_ = directory_begin_ + directory_bytes;
    return absl::OkStatus();
  }

  // Reads the directory entry at `at` and moves past it.
  absl::StatusOr<ZipMember> ReadCentral(uint64_t& at) {
    if (!Inside(at, kCentralBytes, directory_end_) || U32(at) != kCentralSignature) {
      return Error(absl::StrCat("has a damaged directory at byte ", at));
    }
    const uint16_t flags = U16(at + 8);
    const uint16_t method = U16(at + 10);
    const uint64_t name_bytes = U16(at + 28);
    const uint64_t extra_bytes = U16(at + 30);
    const uint64_t rest = name_bytes + extra_bytes + U16(at + 32);
    if (!Inside(at + kCentralBytes, rest, directory_end_)) {
      return Error(absl::StrCat("has a directory entry at byte ", at, " that runs past its end"));
    }
    ZipMember member;
    member.name = std::string(Text(at + kCentralBytes, name_bytes));
    if ((flags & 1) != 0) return Error(absl::StrCat("member ", Quote(member.name), " is encrypted"));
    if (method != 0 && method != Z_DEFLATED) {
      return Error(absl::StrCat("member ", Quote(member.name), " uses compression method ", method,
                                "; 0 (stored) and 8 (deflated) are known"));
    }
    member.deflated = method == Z_DEFLATED;
    member.crc32 = U32(at + 16);
    uint64_t packed = U32(at + 20);
    member.size = U32(at + 24);
    uint64_t local = U32(at + 42);
    LANCET_RETURN_IF_ERROR(ReadZip64Extra(at + kCentralBytes + name_bytes, extra_bytes,
                                          {&member.size, &packed, &local}, member.name));
    if (!member.deflated && packed != member.size) {
      return Error(absl::StrCat("member ", Quote(member.name), " is stored in ", packed, " bytes but has ",
                                member.size));
    }
    LANCET_ASSIGN_OR_RETURN(member.raw, ReadLocal(member.name, method, local, packed));
    at += kCentralBytes + rest;
    return member;
  }

  // Replaces the values that are kIn64 by those of the zip64 extra field, which holds just these, in this
  // order.
  absl::Status ReadZip64Extra(uint64_t at, uint64_t size, std::initializer_list<uint64_t*> values,
                              absl::string_view name) const {
    const bool needed =
        std::any_of(values.begin(), values.end(), [](const uint64_t* v) { return *v == kIn64; });
    if (!needed) return absl::OkStatus();
    const uint64_t end = at + size;
    while (Inside(at, 4, end)) {
      const uint64_t field_end = at + 4 + U16(at + 2);
      if (field_end > end) break;
      if (U16(at) == kZip64ExtraId) {
        uint64_t next = at + 4;
        for (uint64_t* value : values) {
          if (*value != kIn64) continue;
          if (!Inside(next, 8, field_end)) break;
          *value = U64(next);
          next += 8;
        }
        return absl::OkStatus();
      }
      at = field_end;
    }
    return Error(absl::StrCat("member ", Quote(name), " lacks its zip64 sizes"));
  }

  absl::StatusOr<absl::Span<const std::byte>> ReadLocal(absl::string_view name, uint16_t method,
                                                        uint64_t local, uint64_t packed) {
    if (!Inside(local, kLocalBytes, directory_begin_) || U32(local) != kLocalSignature) {
      return Error(absl::StrCat("member ", Quote(name), " has no header at byte ", local));
    }
    const uint64_t name_bytes = U16(local + 26);
    const uint64_t header_bytes = kLocalBytes + name_bytes + U16(local + 28);
    if (!Inside(local, header_bytes, directory_begin_) || Text(local + kLocalBytes, name_bytes) != name ||
        U16(local + 8) != method) {
      return Error(absl::StrCat("member ", Quote(name), " has a header at byte ", local,
                                " that contradicts the directory"));
    }
    const uint64_t begin = local + header_bytes;
    if (!Inside(begin, packed, directory_begin_)) {
      return Error(absl::StrCat("member ", Quote(name), " of ", packed, " bytes at byte ", begin,
                                " runs past the members (truncated?)"));
    }
    extents_.push_back({local, begin + packed});
    return bytes_.subspan(begin, packed);
  }

  // Members that share bytes are how a small archive unpacks into a huge one.
  absl::Status CheckDisjoint() {
    std::sort(extents_.begin(), extents_.end());
    for (size_t i = 1; i < extents_.size(); ++i) {
      if (extents_[i].first < extents_[i - 1].second) {
        return Error(absl::StrCat("has members that overlap at byte ", extents_[i].first));
      }
    }
    return absl::OkStatus();
  }

  const absl::Span<const std::byte> bytes_;
  const absl::string_view path_;
  uint64_t num_members_ = 0;
  uint64_t directory_begin_ = 0;
  uint64_t directory_end_ = 0;
  std::vector<std::pair<uint64_t, uint64_t>> extents_;  // of each member with its header, [begin, end)
};

// zlib takes lengths as uInt; longer buffers are fed in pieces.
uInt Piece(uint64_t size) {
  return static_cast<uInt>(std::min<uint64_t>(size, std::numeric_limits<uInt>::max()));
}

uint32_t Crc32(const std::byte* data, uint64_t size) {
  uLong crc = crc32(0, nullptr, 0);
  while (size > 0) {
    const uInt piece = Piece(size);
    crc = crc32(crc, reinterpret_cast<const Bytef*>(data), piece);
    data += piece;
    size -= piece;
  }
  return static_cast<uint32_t>(crc);
}

// True if `packed` inflates to exactly `size` bytes.
bool Inflate(absl::Span<const std::byte> packed, std::byte* out, uint64_t size) {
  z_stream stream{};
  // Negative window bits: a raw deflate stream, as zip holds it.
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return false;
  uint64_t in_left = packed.size();
  uint64_t out_left = size;
  Bytef nothing = 0;
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(packed.data()));
  stream.next_out = size > 0 ? reinterpret_cast<Bytef*>(out) : &nothing;
  int result = Z_OK;
  while (result == Z_OK) {
    const uInt in_piece = Piece(in_left);
    const uInt out_piece = Piece(out_left);
    stream.avail_in = in_piece;
    stream.avail_out = out_piece;
    // Z_BUF_ERROR, no progress possible, ends the loop when input or room runs out early.
    result = inflate(&stream, Z_NO_FLUSH);
    in_left -= in_piece - stream.avail_in;
    out_left -= out_piece - stream.avail_out;
  }
  inflateEnd(&stream);
  return result == Z_STREAM_END && out_left == 0 && in_left == 0;
}

}  // namespace

absl::StatusOr<ZipArchive> ZipArchive::Parse(absl::Span<const std::byte> bytes, absl::string_view path) {
  LANCET_ASSIGN_OR_RETURN(std::vector<ZipMember> members, Parser(bytes, path).Run());
  ZipArchive archive;
  archive.members_ = std::move(members);
  for (size_t i = 0; i < archive.members_.size(); ++i) {
    if (!archive.index_.emplace(archive.members_[i].name, i).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": zip archive has two members ", Quote(archive.members_[i].name)));
    }
  }
  return archive;
}

const ZipMember* ZipArchive::Find(absl::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &members_[it->second];
}

absl::StatusOr<std::unique_ptr<std::byte[]>> UnpackZipMember(const ZipMember& member, uint64_t max_bytes,
                                                             absl::string_view path) {
  if (member.size > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(path, ": zip member ", Quote(member.name),
                                                     " unpacks to ", member.size, " bytes; the limit is ",
                                                     max_bytes));
  }
  // Not value-initialised: pages of a size that the content does not reach are never touched.
  std::unique_ptr<std::byte[]> content(new (std::nothrow) std::byte[std::max<uint64_t>(member.size, 1)]);
  if (content == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": no memory for the ", member.size, " bytes of zip member ", Quote(member.name)));
  }
  if (!member.deflated) {
    if (member.size > 0) std::memcpy(content.get(), member.raw.data(), member.size);
  } else if (!Inflate(member.raw, content.get(), member.size)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": zip member ", Quote(member.name),
                                                   " is damaged: it does not unpack to its ", member.size,
                                                   " bytes"));
  }
  if (Crc32(content.get(), member.size) != member.crc32) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": zip member ", Quote(member.name), " is damaged: its CRC-32 differs"));
  }
  return content;
}

}  // namespace lancet

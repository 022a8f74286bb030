#include "tests/testing/torch_archive.h"

#include <zlib.h>

#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

void Put(std::string& out, uint64_t value, int num_bytes) {
  for (int i = 0; i < num_bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

std::string Deflate(absl::string_view content) {
  std::string packed(compressBound(content.size()) + 64, '\0');
  z_stream stream{};
  deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

}  // namespace

std::string ZipBytes(const std::vector<TestZipMember>& members) {
  std::string out;
  std::string directory;
  for (const TestZipMember& member : members) {
    const std::string raw = member.deflate ? Deflate(member.content) : member.content;
    const uint64_t size =
        member.declared_size >= 0 ? static_cast<uint64_t>(member.declared_size) : member.content.size();
    const uint64_t packed = member.deflate || member.declared_size < 0 ? raw.size() : size;
    const uint64_t crc = member.declared_crc >= 0
                             ? static_cast<uint64_t>(member.declared_crc)
                             : crc32(0, reinterpret_cast<const Bytef*>(member.content.data()),
                                     static_cast<uInt>(member.content.size()));
    const int method = member.method >= 0 ? member.method : (member.deflate ? 8 : 0);
    const uint64_t local = out.size();
    std::string common;  // what local header and directory entry share
    Put(common, 20, 2);
    Put(common, member.flags, 2);
    Put(common, static_cast<uint64_t>(method), 2);
    Put(common, 0, 4);
    Put(common, crc, 4);
    Put(common, packed, 4);
    Put(common, size, 4);
    Put(common, member.name.size(), 2);
    Put(common, 0, 2);
    absl::StrAppend(&out, "PK\x03\x04", common, member.name, raw);
    absl::StrAppend(&directory, "PK\x01\x02", absl::string_view("\x14\x00", 2), common);
    Put(directory, 0, 2);  // comment
    Put(directory, 0, 2);  // disk
    Put(directory, 0, 2);
    Put(directory, 0, 4);
    Put(directory, local, 4);
    directory += member.name;
  }
  const uint64_t directory_begin = out.size();
  absl::StrAppend(&out, directory, "PK\x05\x06");
  Put(out, 0, 4);
  Put(out, members.size(), 2);
  Put(out, members.size(), 2);
  Put(out, directory.size(), 4);
  Put(out, directory_begin, 4);
  Put(out, 0, 2);
  return out;
}

namespace pickle {

std::string Text(absl::string_view text) {
  std::string out(1, 'X');
  Put(out, text.size(), 4);
  return absl::StrCat(out, text);
}

std::string Int(int64_t value) {
  std::string out;
  if (value >= INT32_MIN && value <= INT32_MAX) {
    out.push_back('J');
    Put(out, static_cast<uint64_t>(value), 4);
  } else {
    out.push_back('\x8a');
    out.push_back('\x08');
    Put(out, static_cast<uint64_t>(value), 8);
  }
  return out;
}

std::string Ints(const std::vector<int64_t>& values) {
  std::string out(1, '(');
  for (const int64_t value : values) out += Int(value);
  out.push_back('t');
  return out;
}

std::string Storage(absl::string_view type, absl::string_view key, int64_t elements) {
  return absl::StrCat("(", Text("storage"), "ctorch\n", type, "\n", Text(key), Text("cpu"), Int(elements),
                      "tQ");
}

std::string Tensor(absl::string_view storage, int64_t offset, const std::vector<int64_t>& shape,
                   const std::vector<int64_t>& strides) {
  return absl::StrCat("ctorch._utils\n_rebuild_tensor_v2\n(", storage, Int(offset), Ints(shape),
                      Ints(strides), "\x89", kOrderedDict, "tR");
}

std::string StateDict(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string out = absl::StrCat(kStart, kOrderedDict, "(");
  for (const auto& [key, value] : entries) absl::StrAppend(&out, Text(key), value);
  return absl::StrCat(out, "u", kStop);
}

}  // namespace pickle
}  // namespace lancet

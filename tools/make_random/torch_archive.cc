#include "tools/make_random/torch_archive.h"

#include <zlib.h>

#include <filesystem>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"

namespace lancet {
namespace {

constexpr int64_t kDataAlignment = 64;
constexpr int64_t kLocalHeaderBytes = 30;
constexpr uint16_t kPaddingField = 0x4246;  // "FB": the extra field that torch pads with
constexpr int64_t kPaddingFieldBytes = 4;   // its id and length
constexpr size_t kMaxMembers = 65535;

// Appends integers, little-endian.
class Bytes {
 public:
  Bytes& Number(uint64_t value, int size) {
    for (int i = 0; i < size; ++i) text_.push_back(static_cast<char>(value >> (8 * i)));
    return *this;
  }
  Bytes& Append(absl::string_view text) {
    text_.append(text.data(), text.size());
    return *this;
  }
  Bytes& Zeros(int64_t count) {
    text_.append(static_cast<size_t>(count), '\0');
    return *this;
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

// Opcodes of pickle protocol 2 that a flat dict of tensors takes.
class Pickler {
 public:
  Pickler() { out_.Append("\x80\x02"); }

  void Global(absl::string_view module, absl::string_view name) {
    out_.Append("c").Append(module).Append("\n").Append(name).Append("\n");
  }
  void Text(absl::string_view text) { out_.Append("X").Number(text.size(), 4).Append(text); }
  void Integer(int64_t value) {
    if (value >= 0 && value < 256) {
      out_.Append("K").Number(static_cast<uint64_t>(value), 1);
    } else if (value >= 0 && value <= std::numeric_limits<int32_t>::max()) {
      out_.Append("J").Number(static_cast<uint64_t>(value), 4);
    } else {
      out_.Append("\x8a").Number(8, 1).Number(static_cast<uint64_t>(value), 8);
    }
  }
  void Op(char op) { out_.Append(absl::string_view(&op, 1)); }
  void Extents(absl::Span<const int64_t> extents) {
    Op('(');
    for (const int64_t extent : extents) Integer(extent);
    Op('t');
  }
  void EmptyOrderedDict() {
    Global("collections", "OrderedDict");
    Op(')');
    Op('R');
  }
  std::string Take() {
    Op('.');
    return out_.Take();
  }

 private:
  Bytes out_;
};

std::string PickleOf(absl::Span<const RandomTensor> tensors) {
  Pickler pickle;
  pickle.EmptyOrderedDict();
  pickle.Op('(');
  for (size_t i = 0; i < tensors.size(); ++i) {
    const RandomTensor& tensor = tensors[i];
    pickle.Text(tensor.name);
    pickle.Global("torch._utils", "_rebuild_tensor_v2");
    pickle.Op('(');
    // ('storage', type, key, location, elements), then offset, shape, strides, requires_grad and no hooks.
    pickle.Op('(');
    pickle.Text("storage");
    pickle.Global("torch", tensor.dtype == DType::kF32 ? "FloatStorage" : "BFloat16Storage");
    pickle.Text(absl::StrCat(i));
    pickle.Text("cpu");
    pickle.Integer(NumElements(tensor.shape));
    pickle.Op('t');
    pickle.Op('Q');
    pickle.Integer(0);
    pickle.Extents(tensor.shape);
    Shape strides(tensor.shape.size(), 1);
    for (size_t d = strides.size(); d-- > 1;) strides[d - 1] = strides[d] * tensor.shape[d];
    pickle.Extents(strides);
    pickle.Op('\x89');
    pickle.EmptyOrderedDict();
    pickle.Op('t');
    pickle.Op('R');
  }
  pickle.Op('u');
  return pickle.Take();
}

uint32_t Crc32(absl::string_view text) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const unsigned char*>(text.data()), text.size()));
}

// What both kinds of zip headers say of a member: no flags, stored, 1 January 1980, sum and sizes.
void Describe(uint32_t crc32, int64_t size, size_t name_bytes, int64_t extra_bytes, Bytes& header) {
  constexpr uint16_t kFirstDay = 0x21;
  header.Number(0, 2).Number(0, 2).Number(0, 2).Number(kFirstDay, 2).Number(crc32, 4);
  header.Number(static_cast<uint64_t>(size), 4).Number(static_cast<uint64_t>(size), 4);
  header.Number(name_bytes, 2).Number(static_cast<uint64_t>(extra_bytes), 2);
}

}  // namespace

absl::StatusOr<TorchArchive> TorchArchive::Plan(const std::string& path,
                                                absl::Span<const RandomTensor> tensors) {
  const std::string folder = std::filesystem::path(path).stem().string();
  TorchArchive archive;
  const auto add = [&](absl::string_view name, int64_t size, std::string content) {
    Member& member = archive.members_.emplace_back();
    member.name = absl::StrCat(folder, "/", name);
    member.size = size;
    member.crc32 = Crc32(content);
    member.content = std::move(content);
  };
  std::string pickle = PickleOf(tensors);
  add("data.pkl", static_cast<int64_t>(pickle.size()), pickle);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].dtype != DType::kF32 && tensors[i].dtype != DType::kBf16) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", Quote(tensors[i].name), " is ",
                                                     DTypeName(tensors[i].dtype), "; expected F32 or BF16"));
    }
    add(absl::StrCat("data/", i), tensors[i].num_bytes(), "");
  }
  add("version", 2, "3\n");
  int64_t end = 0;
  for (Member& member : archive.members_) {
    member.header_offset = end;
    const int64_t unpadded =
        end + kLocalHeaderBytes + static_cast<int64_t>(member.name.size()) + kPaddingFieldBytes;
    member.data_offset = (unpadded + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
    end = member.data_offset + member.size;
  }
  archive.directory_offset_ = end;
  const int64_t total = end + static_cast<int64_t>(archive.Directory().size());
  if (total > std::numeric_limits<uint32_t>::max() || archive.members_.size() > kMaxMembers) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": would have ", total, " bytes in ",
                                                   archive.members_.size(),
                                                   " members; an archive without zip64 holds less than 4 GiB "
                                                   "in 65535 members"));
  }
  return archive;
}

std::string TorchArchive::LocalHeader(const Member& member) const {
  const int64_t extra = member.data_offset - member.header_offset - kLocalHeaderBytes -
                        static_cast<int64_t>(member.name.size());
  Bytes header;
  header.Append("PK\x03\x04").Number(20, 2);
  Describe(member.crc32, member.size, member.name.size(), extra, header);
  header.Append(member.name);
  header.Number(kPaddingField, 2).Number(static_cast<uint64_t>(extra - kPaddingFieldBytes), 2);
  header.Zeros(extra - kPaddingFieldBytes);
  return header.Take();
}

std::string TorchArchive::Directory() const {
  Bytes directory;
  for (const Member& member : members_) {
    directory.Append("PK\x01\x02").Number(20, 2).Number(20, 2);
    Describe(member.crc32, member.size, member.name.size(), 0, directory);
    // No comment, first disk, no attributes.
    directory.Number(0, 2).Number(0, 2).Number(0, 2).Number(0, 4);
    directory.Number(static_cast<uint64_t>(member.header_offset), 4).Append(member.name);
  }
  const std::string entries = directory.Take();
  Bytes whole;
  whole.Append(entries).Append("PK\x05\x06").Number(0, 2).Number(0, 2);
  whole.Number(members_.size(), 2).Number(members_.size(), 2).Number(entries.size(), 4);
  whole.Number(static_cast<uint64_t>(directory_offset_), 4).Number(0, 2);
  return whole.Take();
}

std::vector<TorchArchive::Text> TorchArchive::Texts() const {
  std::vector<Text> texts;
  for (const Member& member : members_) {
    texts.push_back({member.header_offset, LocalHeader(member)});
    if (!member.content.empty()) texts.push_back({member.data_offset, member.content});
  }
  texts.push_back({directory_offset_, Directory()});
  return texts;
}

}  // namespace lancet

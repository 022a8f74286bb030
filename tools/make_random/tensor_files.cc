#include "tools/make_random/tensor_files.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"
#include "tools/make_random/output_file.h"
#include "tools/make_random/torch_archive.h"

namespace lancet {
namespace {

constexpr int64_t kPieceBytes = int64_t{4} << 20;
static_assert(kPieceBytes % kRandomPieceAlignment == 0);

// A piece of a tensor and where it goes.
struct Piece {
  const RandomTensor* tensor = nullptr;
  int64_t first = 0;  // byte of the tensor
  int64_t size = 0;
  int64_t offset = 0;  // byte of the file
  uint32_t crc32 = 0;  // of the piece, when asked for
};

void AddPieces(const RandomTensor& tensor, int64_t offset, std::vector<Piece>& pieces) {
  const int64_t bytes = tensor.num_bytes();
  for (int64_t first = 0; first < bytes; first += kPieceBytes) {
    pieces.push_back({&tensor, first, std::min(kPieceBytes, bytes - first), offset + first});
  }
}

absl::Status WritePieces(const OutputFile& file, std::vector<Piece>& pieces, bool with_crc,
                         ThreadPool& pool) {
  std::vector<absl::Status> statuses(static_cast<size_t>(pool.num_threads()));
  pool.ParallelFor(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end, int thread) {
    std::vector<std::byte> buffer(static_cast<size_t>(kPieceBytes));
    for (int64_t i = begin; i < end && statuses[thread].ok(); ++i) {
      Piece& piece = pieces[i];
      const absl::Span<std::byte> bytes(buffer.data(), static_cast<size_t>(piece.size));
      FillRandom(*piece.tensor, piece.first, bytes);
      if (with_crc) {
        piece.crc32 = static_cast<uint32_t>(
            crc32_z(0, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
      }
      statuses[thread] = file.WriteAt(piece.offset, bytes);
    }
  });
  for (absl::Status& status : statuses) LANCET_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

std::string SafetensorsHeader(absl::Span<const RandomTensor> tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  int64_t end = 0;
  for (const RandomTensor& tensor : tensors) {
    const int64_t begin = end;
    end += tensor.num_bytes();
    header[tensor.name] = {{"dtype", std::string(DTypeName(tensor.dtype))},
                           {"shape", std::vector<int64_t>(tensor.shape.begin(), tensor.shape.end())},
                           {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

std::string LittleEndian64(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

}  // namespace

absl::Status WriteRandomSafetensors(const std::string& path, absl::Span<const RandomTensor> tensors,
                                    ThreadPool& pool) {
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<OutputFile> file, OutputFile::Create(path));
  const std::string header = SafetensorsHeader(tensors);
  LANCET_RETURN_IF_ERROR(file->WriteAt(0, absl::StrCat(LittleEndian64(header.size()), header)));
  std::vector<Piece> pieces;
  int64_t offset = 8 + static_cast<int64_t>(header.size());
  for (const RandomTensor& tensor : tensors) {
    AddPieces(tensor, offset, pieces);
    offset += tensor.num_bytes();
  }
  LANCET_RETURN_IF_ERROR(WritePieces(*file, pieces, /*with_crc=*/false, pool));
  return file->Finish();
}

absl::Status WriteRandomTorchArchive(const std::string& path, absl::Span<const RandomTensor> tensors,
                                     ThreadPool& pool) {
  LANCET_ASSIGN_OR_RETURN(TorchArchive archive, TorchArchive::Plan(path, tensors));
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<OutputFile> file, OutputFile::Create(path));
  std::vector<Piece> pieces;
  for (size_t i = 0; i < tensors.size(); ++i) AddPieces(tensors[i], archive.data_offset(i), pieces);
  LANCET_RETURN_IF_ERROR(WritePieces(*file, pieces, /*with_crc=*/true, pool));
  size_t next = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    uint32_t sum = 0;
    for (; next < pieces.size() && pieces[next].tensor == &tensors[i]; ++next) {
      sum = static_cast<uint32_t>(crc32_combine(sum, pieces[next].crc32, pieces[next].size));
    }
    archive.SetCrc32(i, sum);
  }
  for (const TorchArchive::Text& text : archive.Texts()) {
    LANCET_RETURN_IF_ERROR(file->WriteAt(text.offset, text.bytes));
  }
  return file->Finish();
}

}  // namespace lancet

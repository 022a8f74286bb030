#include "tools/quantize/release_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

namespace fs = std::filesystem;

constexpr char kTrunkFolder[] = "Lance_3B-NVFP4";
constexpr char kPartialFolder[] = ".Lance_3B-NVFP4.partial";
constexpr char kBaseFolder[] = "Lance_3B";
constexpr char kVisionFolder[] = "Qwen2.5-VL-ViT";

absl::Status FileError(const std::error_code& error, const std::string& what) {
  return absl::ErrnoToStatus(error.value(), what);
}

absl::Status SyncFolder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot open"));
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  return result == 0 ? absl::OkStatus() : absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot sync"));
}

absl::Status WriteSynced(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot create"));
  size_t done = 0;
  int error = 0;
  while (done < text.size() && error == 0) {
    const ssize_t wrote = write(fd, text.data() + done, text.size() - done);
    if (wrote >= 0) {
      done += static_cast<size_t>(wrote);
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  if (error == 0 && fsync(fd) != 0) error = errno;
  close(fd);
  return error == 0 ? absl::OkStatus() : absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot write"));
}

// Links `from` as `to` unless that is there; copies by way of another name if links are refused.
absl::Status LinkOrCopy(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (fs::exists(to, error)) return absl::OkStatus();
  fs::create_directories(to.parent_path(), error);
  if (error) return FileError(error, absl::StrCat(to.parent_path().string(), ": cannot create"));
  // Of what a symbolic link leads to: downloads may consist of links into a cache.
  const fs::path file = fs::canonical(from, error);
  if (error) return FileError(error, absl::StrCat(from.string(), ": cannot resolve"));
  fs::create_hard_link(file, to, error);
  if (!error) return absl::OkStatus();
  const fs::path partial = to.string() + ".partial";
  fs::copy_file(file, partial, fs::copy_options::overwrite_existing, error);
  if (!error) fs::rename(partial, to, error);
  return error ? FileError(error, absl::StrCat(to.string(), ": cannot copy ", from.string()))
               : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ReleaseFolder>> ReleaseFolder::Create(const std::string& output) {
  const std::string folder = (fs::path(output) / kTrunkFolder).string();
  const std::string partial = (fs::path(output) / kPartialFolder).string();
  std::error_code error;
  if (fs::exists(folder, error)) {
    return absl::AlreadyExistsError(absl::StrCat(folder, " exists; choose another --output or remove it"));
  }
  fs::create_directories(partial, error);
  if (error) return FileError(error, absl::StrCat(partial, ": cannot create"));
  const int lock = open(partial.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock < 0) return absl::ErrnoToStatus(errno, absl::StrCat(partial, ": cannot open"));
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    close(lock);
    return absl::FailedPreconditionError(absl::StrCat(partial, ": another program writes there"));
  }
  auto release = std::unique_ptr<ReleaseFolder>(new ReleaseFolder(output, partial, lock));
  // Of a program that was killed.
  for (const char* name : {"nvfp4_state_dict.safetensors", "nvfp4_meta.json"}) {
    fs::remove(fs::path(partial) / name, error);
  }
  return release;
}

ReleaseFolder::~ReleaseFolder() {
  std::error_code error;
  if (!published_) fs::remove_all(partial_, error);
  close(lock_);
}

absl::StatusOr<std::vector<std::string>> ReleaseFolder::AddCompanions(const SourceFiles& source) const {
  std::vector<std::string> missing;
  std::error_code error;
  const fs::path folder = source.folder;
  // A download has the model's folder and the others side by side.
  const fs::path download = fs::absolute(folder, error).lexically_normal().parent_path();
  const fs::path base = fs::path(output_) / kBaseFolder;
  LANCET_RETURN_IF_ERROR(LinkOrCopy(source.llm_config, base / "llm_config.json"));
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json"}) {
    if (fs::is_regular_file(folder / name, error)) {
      LANCET_RETURN_IF_ERROR(LinkOrCopy(folder / name, base / name));
    } else if (!fs::exists(base / name, error)) {
      missing.push_back(absl::StrCat(kBaseFolder, "/", name));
    }
  }
  bool has_vae = false;
  for (const char* name : {"Wan2.2_VAE.safetensors", "Wan2.2_VAE.pth"}) {
    if (!has_vae && fs::is_regular_file(download / name, error)) {
      LANCET_RETURN_IF_ERROR(LinkOrCopy(download / name, fs::path(output_) / name));
    }
    has_vae = has_vae || fs::exists(fs::path(output_) / name, error);
  }
  if (!has_vae) missing.push_back("Wan2.2_VAE.safetensors or Wan2.2_VAE.pth");
  for (const char* name : {"config.json", "vit.safetensors"}) {
    const fs::path relative = fs::path(kVisionFolder) / name;
    if (fs::is_regular_file(download / relative, error)) {
      LANCET_RETURN_IF_ERROR(LinkOrCopy(download / relative, fs::path(output_) / relative));
    } else if (!fs::exists(fs::path(output_) / relative, error)) {
      missing.push_back(relative.string());
    }
  }
  if (fs::is_regular_file(download / "lancet.json", error)) {
    LANCET_RETURN_IF_ERROR(LinkOrCopy(download / "lancet.json", fs::path(output_) / "lancet.json"));
  }
  return missing;
}

absl::Status ReleaseFolder::Publish(const std::string& meta_json) {
  LANCET_RETURN_IF_ERROR(WriteSynced(partial_ + "/nvfp4_meta.json", meta_json));
  LANCET_RETURN_IF_ERROR(SyncFolder(partial_));
  const std::string folder = (fs::path(output_) / kTrunkFolder).string();
  std::error_code error;
  fs::rename(partial_, folder, error);
  if (error) return FileError(error, absl::StrCat(folder, ": cannot rename ", partial_));
  published_ = true;
  return SyncFolder(output_);
}

}  // namespace lancet

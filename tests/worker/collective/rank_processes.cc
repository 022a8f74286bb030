#include "tests/worker/collective/rank_processes.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace lancet {

RankProcess::RankProcess(const std::function<absl::Status()>& body) {
  int fds[2];
  if (pipe(fds) != 0) {
    std::perror("pipe");
    std::abort();
  }
  pid_ = fork();
  if (pid_ < 0) {
    std::perror("fork");
    std::abort();
  }
  if (pid_ == 0) {
    close(fds[0]);
    const absl::Status status = body();
    const std::string text = absl::StrCat(static_cast<int>(status.code()), " ", status.message());
    const bool written = write(fds[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    _exit(written ? 0 : 1);
  }
  close(fds[1]);
  result_fd_ = fds[0];
}

RankProcess::~RankProcess() {
  Kill();
  close(result_fd_);
}

absl::Status RankProcess::Join() {
  std::string text;
  char buffer[256];
  ssize_t count = 0;
  while ((count = read(result_fd_, buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(count));
  }
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
  const size_t space = text.find(' ');
  int code = 0;
  if (space == std::string::npos || !absl::SimpleAtoi(text.substr(0, space), &code)) {
    return absl::AbortedError("the process ended without a result");
  }
  return absl::Status(static_cast<absl::StatusCode>(code), text.substr(space + 1));
}

void RankProcess::WaitUntilStopped() const {
  int status = 0;
  waitpid(pid_, &status, WUNTRACED);
}

void RankProcess::Kill() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
}

std::string UniqueSegmentName() {
  return absl::StrCat("lancet-test-", getpid(), "-", absl::GetCurrentTimeNanos());
}

bool SegmentNameExists(const std::string& name) {
  return access(absl::StrCat("/dev/shm/", name).c_str(), F_OK) == 0;
}

}  // namespace lancet

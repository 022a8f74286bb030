#include "tests/integration/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace lancet {

absl::StatusOr<std::unique_ptr<Process>> Process::Start(const std::vector<std::string>& arguments,
                                                        const std::string& log) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const absl::Cleanup destroy = [&] { posix_spawn_file_actions_destroy(&actions); };
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  if (error != 0)
    return absl::UnknownError(absl::StrCat("cannot start ", arguments[0], ": ", strerror(error)));
  return std::unique_ptr<Process>(new Process(pid, log));
}

Process::~Process() {
  if (!Running()) return;
  // A stopped process dies of SIGKILL too.
  Signal(SIGKILL);
  int status = 0;
  waitpid(pid_, &status, 0);
}

void Process::Signal(int number) const {
  if (!end_.has_value()) kill(pid_, number);
}

bool Process::Running() { return !AwaitEnd(absl::ZeroDuration()).has_value(); }

std::optional<ProcessEnd> Process::AwaitEnd(absl::Duration timeout) {
  if (end_.has_value()) return end_;
  // A pidfd becomes readable when the process ends.
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  if (fd < 0) return std::nullopt;
  const absl::Cleanup close_fd = [fd] { close(fd); };
  pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
  if (poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout))) <= 0) return std::nullopt;
  int status = 0;
  if (waitpid(pid_, &status, 0) != pid_) return std::nullopt;
  end_.emplace();
  if (WIFEXITED(status)) {
    end_->exit_code = WEXITSTATUS(status);
  } else {
    end_->signal = WTERMSIG(status);
  }
  return end_;
}

std::string Process::Log() const {
  std::ifstream file(log_, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace lancet

#include "client/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"

namespace lancet {
namespace {

// An answer is a few dozen bytes; more is not one.
constexpr size_t kMaxAnswerBytes = 256;

}  // namespace

int TerminalColumns(int fd) {
  winsize size{};
  if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string QueryDeviceAttributes(int in_fd, int out_fd, absl::Duration timeout) {
  if (!isatty(in_fd) || !isatty(out_fd)) return "";
  termios saved{};
  if (tcgetattr(in_fd, &saved) != 0) return "";
  termios raw = saved;
  // The answer must neither be echoed nor wait for a line end.
  raw.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON);
  if (tcsetattr(in_fd, TCSANOW, &raw) != 0) return "";
  const absl::Cleanup restore = [&] { tcsetattr(in_fd, TCSANOW, &saved); };
  constexpr absl::string_view kQuery = "\x1b[c";
  if (write(out_fd, kQuery.data(), kQuery.size()) != static_cast<ssize_t>(kQuery.size())) return "";
  const absl::Time deadline = absl::Now() + timeout;
  std::string answer;
  while (answer.size() < kMaxAnswerBytes) {
    pollfd wait{.fd = in_fd, .events = POLLIN, .revents = 0};
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left_ms <= 0 || poll(&wait, 1, static_cast<int>(left_ms)) <= 0) return "";
    char byte = 0;
    if (read(in_fd, &byte, 1) != 1) return "";
    answer += byte;
    if (byte == 'c' && answer.find("\x1b[?") != std::string::npos) return answer;
  }
  return "";
}

}  // namespace lancet

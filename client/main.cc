// lancet: pictures from text. `lancet --help` explains.
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "client/cli.h"
#include "client/terminal.h"

namespace {

// A terminal on the same machine answers in a millisecond, one behind a slow line within this.
constexpr absl::Duration kTerminalAnswer = absl::Milliseconds(300);

std::string Environment(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<lancet::InlineProtocol> DetectInlineProtocol() {
  lancet::TerminalHints hints{.term = Environment("TERM"),
                              .term_program = Environment("TERM_PROGRAM"),
                              .kitty_window_id = Environment("KITTY_WINDOW_ID"),
                              .da1_reply = ""};
  if (!lancet::KnownByName(hints)) {
    hints.da1_reply = lancet::QueryDeviceAttributes(STDIN_FILENO, STDERR_FILENO, kTerminalAnswer);
  }
  return lancet::DetectInlineProtocol(hints);
}

}  // namespace

int main(int argc, char** argv) {
  // Taken by one thread below; blocked here first, so that every thread inherits it.
  sigset_t interrupts;
  sigemptyset(&interrupts);
  sigaddset(&interrupts, SIGINT);
  sigaddset(&interrupts, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &interrupts, nullptr);
  signal(SIGPIPE, SIG_IGN);

  lancet::Cancellation cancellation;
  std::thread([interrupts, &cancellation] {
    int signal_number = 0;
    sigwait(&interrupts, &signal_number);
    cancellation.Cancel();
    // A second one means that somebody is tired of waiting for a clean end.
    sigwait(&interrupts, &signal_number);
    _exit(static_cast<int>(lancet::ExitCode::kCancelled));
  }).detach();

  const lancet::CliEnvironment environment{.out = std::cout,
                                           .err = std::cerr,
                                           .err_is_terminal = isatty(STDERR_FILENO) != 0,
                                           .columns = lancet::TerminalColumns(STDERR_FILENO),
                                           .detect_inline_protocol = DetectInlineProtocol};
  const lancet::ExitCode code =
      lancet::RunCli(std::vector<std::string>(argv + 1, argv + argc), environment, &cancellation);
  std::cout.flush();
  // Not return: the thread above still waits, with a reference to this frame.
  _exit(static_cast<int>(code));
}

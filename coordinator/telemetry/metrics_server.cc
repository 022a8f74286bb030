#include "coordinator/telemetry/metrics_server.h"

#include <httplib.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/host_port.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr int kThreads = 4;
// Connections that were accepted and wait for a thread; further ones stay with the kernel, whose own backlog
// is short.
constexpr size_t kMaxWaiting = 16;
// A scraper on the same network takes milliseconds.
constexpr time_t kIoTimeoutSeconds = 1;
constexpr size_t kMaxBodyBytes = 1024;

constexpr char kPlain[] = "text/plain; charset=utf-8";
constexpr char kPrometheusType[] = "text/plain; version=0.0.4; charset=utf-8";
constexpr char kOpenMetricsType[] = "application/openmetrics-text; version=1.0.0; charset=utf-8";

// The library's own pool takes any number of connections; this one makes the accepting thread wait instead.
class BoundedQueue final : public httplib::TaskQueue {
 public:
  BoundedQueue() {
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Run(); });
  }

  void enqueue(std::function<void()> task) override {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return tasks_.size() < kMaxWaiting || stopping_; });
    tasks_.push_back(std::move(task));
    changed_.notify_all();
  }

  void shutdown() override {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      stopping_ = true;
      changed_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  // What is queued is run to the end, as each task owns a socket.
  void Run() {
    while (true) {
      std::function<void()> task;
      {
        std::unique_lock<std::mutex> lock(mu_);
        changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
        changed_.notify_all();
      }
      task();
    }
  }

  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;  // guarded by mu_
  bool stopping_ = false;                    // guarded by mu_
  std::vector<std::thread> threads_;
};

void Answer(const absl::Status& status, httplib::Response& response) {
  response.status = status.ok() ? 200 : 503;
  response.set_content(status.ok() ? "ok\n" : std::string(status.message()) + "\n", kPlain);
}

}  // namespace

struct MetricsServer::Impl {
  Options options;
  httplib::Server server;
  int port = 0;
  std::atomic<bool> ended{false};
  std::thread thread;
};

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Create(Options options) {
  LANCET_ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(options.listen));
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  httplib::Server& server = impl->server;
  server.new_task_queue = [] { return new BoundedQueue(); };  // the library deletes it
  server.set_read_timeout(kIoTimeoutSeconds);
  server.set_write_timeout(kIoTimeoutSeconds);
  // Also how long a connection may say nothing at first, in which time it holds one of the threads.
  server.set_keep_alive_timeout(kIoTimeoutSeconds);
  server.set_keep_alive_max_count(1);
  server.set_payload_max_length(kMaxBodyBytes);
  // The library's default would let a second coordinator share the port.
  server.set_socket_options([](socket_t socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  const Options* const callbacks = &impl->options;
  server.Get("/metrics", [callbacks](const httplib::Request& request, httplib::Response& response) {
    const bool open = absl::StrContains(request.get_header_value("Accept"), "application/openmetrics-text");
    response.set_content(callbacks->metrics(open ? MetricFormat::kOpenMetrics : MetricFormat::kPrometheus),
                         open ? kOpenMetricsType : kPrometheusType);
  });
  server.Get("/healthz", [callbacks](const httplib::Request&, httplib::Response& response) {
    Answer(callbacks->health(), response);
  });
  server.Get("/readyz", [callbacks](const httplib::Request&, httplib::Response& response) {
    Answer(callbacks->readiness(), response);
  });
  impl->port = address.port == 0                                 ? server.bind_to_any_port(address.host)
               : server.bind_to_port(address.host, address.port) ? address.port
                                                                 : -1;
  if (impl->port < 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on '", impl->options.listen, "'"));
  }
  impl->thread = std::thread([impl = impl.get()] {
    impl->server.listen_after_bind();
    impl->ended = true;
  });
  return absl::WrapUnique(new MetricsServer(std::move(impl)));
}

MetricsServer::MetricsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

MetricsServer::~MetricsServer() {
  // Until it runs, stop() is forgotten.
  while (!impl_->server.is_running() && !impl_->ended) std::this_thread::yield();
  impl_->server.stop();
  impl_->thread.join();
}

int MetricsServer::port() const { return impl_->port; }

}  // namespace lancet

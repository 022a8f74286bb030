#include "bench/guard_overhead.h"

#include <httplib.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/generation_client.h"
#include "common/host_port.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[std::lround(q * static_cast<double>(values.size() - 1))];
}

// When the first and the last step were reported, and who is to know of each.
class StepTimes final : public GenerationObserver {
 public:
  explicit StepTimes(std::function<void()> on_step) : on_step_(std::move(on_step)) {}

  void OnProgress(const ProgressInfo& progress) override {
    last_ = absl::Now();
    last_step_ = progress.step;
    if (first_step_ == 0) {
      first_ = last_;
      first_step_ = last_step_;
    }
    if (on_step_ != nullptr) on_step_();
  }
  absl::StatusOr<double> MillisecondsAStep() const {
    if (last_step_ <= first_step_)
      return absl::FailedPreconditionError("a picture without two reported steps");
    return absl::ToDoubleMilliseconds(last_ - first_) / (last_step_ - first_step_);
  }

 private:
  const std::function<void()> on_step_;
  absl::Time first_, last_;
  int first_step_ = 0;
  int last_step_ = 0;
};

// Of all their threads, also of those that are gone.
absl::StatusOr<absl::Duration> ProcessorTime(const std::vector<pid_t>& pids) {
  absl::Duration sum;
  for (const pid_t pid : pids) {
    clockid_t clock = 0;
    timespec time{};
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) {
      return absl::NotFoundError(absl::StrCat("no process ", pid));
    }
    sum += absl::DurationFromTimespec(time);
  }
  return sum;
}

// Milliseconds of a step.
struct StepCost {
  double processor = 0;
  double wall = 0;
};

// Asks for metrics when told so, on a thread of its own; not more often than they come.
class Scraper {
 public:
  explicit Scraper(const HostPort& address) : thread_([this, address] { Run(address); }) {}
  ~Scraper() {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void Ask() {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      asked_ = true;
    }
    changed_.notify_all();
  }
  int scrapes() const { return scrapes_; }

 private:
  void Run(const HostPort& address) {
    httplib::Client client(address.host, address.port);
    while (true) {
      {
        std::unique_lock<std::mutex> lock(mu_);
        changed_.wait(lock, [this] { return stop_ || asked_; });
        if (stop_) return;
        asked_ = false;
      }
      if (httplib::Result answer = client.Get("/metrics"); answer && answer->status == 200) ++scrapes_;
    }
  }

  std::mutex mu_;
  std::condition_variable changed_;
  bool stop_ = false;   // guarded by mu_
  bool asked_ = false;  // guarded by mu_
  std::atomic<int> scrapes_{0};
  std::thread thread_;
};

absl::StatusOr<StepCost> CostOfAStep(GenerationClient& client, const std::vector<pid_t>& pids,
                                     const GuardOverheadOptions& options, int round, Scraper* scraper) {
  GenerationRequest request;
  request.prompt = "a red apple next to a cup of coffee";
  request.size = {options.side, options.side};
  request.num_steps = options.steps;
  request.seed = static_cast<uint64_t>(round);
  if (scraper != nullptr) request.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  StepTimes times(scraper == nullptr ? std::function<void()>() : [scraper] { scraper->Ask(); });
  LANCET_ASSIGN_OR_RETURN(const absl::Duration before, ProcessorTime(pids));
  LANCET_RETURN_IF_ERROR(client.Generate(request, &times, nullptr).status());
  LANCET_ASSIGN_OR_RETURN(const absl::Duration after, ProcessorTime(pids));
  StepCost cost;
  cost.processor = absl::ToDoubleMilliseconds(after - before) / options.steps;
  LANCET_ASSIGN_OR_RETURN(cost.wall, times.MillisecondsAStep());
  return cost;
}

GuardCost Compare(const std::vector<double>& plain, const std::vector<double>& guarded) {
  std::vector<double> ratios;
  for (size_t i = 0; i < plain.size(); ++i) ratios.push_back(guarded[i] / plain[i]);
  return {Quantile(plain, 0.5), Quantile(guarded, 0.5), Quantile(ratios, 0.5), Quantile(ratios, 0.25),
          Quantile(ratios, 0.75)};
}

}  // namespace

absl::StatusOr<GuardOverhead> MeasureGuardOverhead(const GuardOverheadOptions& options) {
  LANCET_ASSIGN_OR_RETURN(const HostPort metrics, ParseHostPort(options.metrics));
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<GenerationClient> plain,
                          GenerationClient::Create(options.plain));
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<GenerationClient> guarded,
                          GenerationClient::Create(options.guarded));
  std::vector<double> processor[2], wall[2];  // without, with
  // The first round warms both up and does not count.
  for (int round = 0; round <= options.rounds; ++round) {
    // Who goes first changes, as the machine's clock may drift within a round.
    for (const bool with_guards : {round % 2 == 0, round % 2 != 0}) {
      StepCost cost;
      if (with_guards) {
        Scraper scraper(metrics);
        LANCET_ASSIGN_OR_RETURN(cost, CostOfAStep(*guarded, options.guarded_pids, options, round, &scraper));
        if (scraper.scrapes() == 0) {
          return absl::UnavailableError(absl::StrCat("no metrics at ", options.metrics));
        }
      } else {
        LANCET_ASSIGN_OR_RETURN(cost, CostOfAStep(*plain, options.plain_pids, options, round, nullptr));
      }
      if (round == 0) continue;
      processor[with_guards ? 1 : 0].push_back(cost.processor);
      wall[with_guards ? 1 : 0].push_back(cost.wall);
    }
  }
  return GuardOverhead{Compare(processor[0], processor[1]), Compare(wall[0], wall[1])};
}

}  // namespace lancet

// Mixed requests of all tasks without end, and the oracle: each must end once, with the bytes of an
// undisturbed one.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/generation_client.h"

namespace lancet {

// A request and what it gives when nothing happens.
struct ChaosCase {
  std::string name;
  GenerationRequest drawing;  // unless it asks
  DescriptionRequest question;
  bool asks = false;
  std::string expected;  // the picture's file, or the text
};

// Pictures by both solvers, with previews of both kinds; edits; answers, the likeliest and drawn.
std::vector<ChaosCase> ChaosCases();

class ChaosLoad {
 public:
  // Runs every case undisturbed and takes what it gives for granted.
  static absl::Status Learn(GenerationClient& client, std::vector<ChaosCase>& cases);

  // `cases` and the client outlive the load.
  ChaosLoad(GenerationClient* client, const std::vector<ChaosCase>* cases, int clients, uint64_t seed);
  // Lets the requests under way end.
  ~ChaosLoad();
  void Stop();

  int ended() const { return ended_; }
  // What was not as it has to be.
  std::vector<std::string> failures() const;
  // The longest time that a request heard nothing, and when that ended.
  struct Silence {
    absl::Duration length;
    absl::Time end;
    std::string name;
    std::string trace_id;  // of the request, in the coordinator's log
  };
  // The shortest first.
  std::vector<Silence> silences() const;

 private:
  void Run(int client, uint64_t seed);
  void RunOne(const ChaosCase& request, const std::string& key);
  void Fail(const ChaosCase& request, const std::string& what);

  GenerationClient* const client_;
  const std::vector<ChaosCase>* const cases_;
  const uint64_t seed_;
  std::atomic<bool> stop_{false};
  std::atomic<int> ended_{0};
  mutable std::mutex mu_;
  std::vector<std::string> failures_;  // guarded by mu_
  std::vector<Silence> silences_;      // likewise
  std::vector<std::thread> threads_;
};

}  // namespace lancet

// The ranks of one group without processes: they check and execute what they are sent, when the test says so.
// What they "compute" depends on everything that a real group's bytes depend on, so that a request that goes
// on wrongly gives another result.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/model_config.h"
#include "common/plan_resume.h"
#include "coordinator/dispatch/dispatcher_core.h"
#include "tests/coordinator/testing/fake_clock.h"
#include "tests/coordinator/testing/fake_rank_link.h"

namespace lancet {

class FakeGroup {
 public:
  // A request as rank 0 has it.
  struct Admitted {
    RequestPlan plan;
    int32_t blocks = 0;
    int32_t steps = 0;
    int32_t tokens = 0;
    uint64_t state = 0;  // of the picture or the answer
  };

  FakeGroup(std::string name, int world_size, DispatcherCore* core, FakeClock* clock)
      : name_(std::move(name)), links_(static_cast<size_t>(world_size)), core_(core), clock_(clock) {}

  std::string numerics = "cpu";
  absl::Duration each = absl::Milliseconds(100);  // on the clock, for an iteration
  int32_t answer_length = 1000;                   // the token after so many ends an answer
  // Kills the group when it is about to execute such work.
  std::function<bool(const Work& work)> deadly = [](const Work&) { return false; };
  std::map<uint64_t, Admitted> admitted;
  std::vector<Work> executed;
  int deaths = 0;

  void JoinRank(int rank) {
    dismissed_.erase(rank);
    links_[rank] = std::make_shared<FakeRankLink>();
    core_->OnConnected(links_[rank], clock_->Now());
    RegisterMessage info;
    info.group = name_;
    info.rank = rank;
    info.world_size = static_cast<int32_t>(links_.size());
    info.fingerprint = "f00d";
    info.max_latents = 4096;
    info.max_rows = 1000;
    info.cache_tokens = 2000;
    info.max_requests = 8;
    info.has_vision = true;
    info.max_patches = 256;
    info.numerics = numerics;
    core_->OnMessage(links_[rank], info, clock_->Now());
  }
  // All ranks that are not there join; the group serves.
  void Serve() {
    // Beyond the backoff after a lost epoch.
    clock_->Advance(absl::Minutes(1));
    for (size_t rank = 0; rank < links_.size(); ++rank) {
      if (links_[rank] == nullptr) JoinRank(static_cast<int>(rank));
    }
    for (int i = 0; i < 3; ++i) {
      core_->Tick(clock_->Now());
      Execute(0);
    }
  }
  // A rank's stream breaks.
  void Kill(int rank) {
    ++deaths;
    inbox_.clear();
    const auto link = std::exchange(links_[rank], nullptr);
    core_->OnClosed(link, absl::UnavailableError("stream broke"), clock_->Now());
    admitted.clear();
  }
  // A rank that was let go hangs up.
  void HangUp(int rank) {
    const auto link = std::exchange(links_[rank], nullptr);
    core_->OnClosed(link, absl::OkStatus(), clock_->Now());
  }
  void SayLeaving(int rank, absl::Duration grace) {
    core_->OnMessage(links_[rank], LeavingMessage{absl::ToDoubleSeconds(grace)}, clock_->Now());
  }
  // Whether the rank was told to exit.
  bool Dismissed(int rank) {
    Collect();
    return dismissed_.contains(rank);
  }

  // Executes everything that was sent, up to so many iterations. False if there was nothing to do.
  bool Execute(int max_iterations = 100000) {
    bool any = false;
    while (true) {
      Collect();
      if (inbox_.empty()) return any;
      auto& [rank, message] = inbox_.front();
      const auto* command = std::get_if<CommandMessage>(&message);
      const bool iterates =
          rank == 0 && command != nullptr && std::holds_alternative<IterateCommand>(command->command);
      if (iterates && max_iterations-- == 0) return any;
      any = true;
      const int to = rank;
      const CoordinatorMessage taken = std::move(message);
      inbox_.pop_front();
      Handle(to, taken);
    }
  }

  // The undisturbed result of a plan: the picture's state, or all tokens.
  static uint64_t Picture(const RequestPlan& plan) {
    uint64_t state = plan.seed;
    for (int32_t step = 0; step < plan.sampler.num_steps; ++step)
      state = Mix(state + static_cast<uint64_t>(step));
    return state;
  }
  static std::string PictureBytes(uint64_t state) { return std::to_string(state); }
  static int32_t Token(uint64_t seed, int32_t index, int32_t fed) {
    return 'a' + static_cast<int32_t>(
                     Mix(seed + 1000 * static_cast<uint64_t>(index) + static_cast<uint64_t>(fed)) % 26);
  }

 private:
  static uint64_t Mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    return x ^ (x >> 27);
  }

  void Collect() {
    for (size_t rank = 0; rank < links_.size(); ++rank) {
      if (links_[rank] == nullptr) continue;
      for (CoordinatorMessage& message : links_[rank]->TakeSent()) {
        if (std::holds_alternative<ShutdownMessage>(message)) dismissed_.insert(static_cast<int>(rank));
        if (const auto* ping = std::get_if<PingMessage>(&message)) {
          // Answered at once, as the transport's threads of a rank do.
          core_->OnMessage(links_[rank], PongMessage{ping->id}, clock_->Now());
          continue;
        }
        inbox_.emplace_back(static_cast<int>(rank), std::move(message));
      }
    }
  }

  void Handle(int rank, const CoordinatorMessage& message) {
    const absl::Time now = clock_->Now();
    if (const auto* form = std::get_if<FormMessage>(&message)) {
      admitted.clear();
      core_->OnMessage(links_[rank], ReadyMessage{form->epoch}, now);
    } else if (const auto* command = std::get_if<CommandMessage>(&message)) {
      DoneMessage done{command->epoch, command->number, {}};
      if (rank == 0 && !Apply(*command, done)) return Kill(static_cast<int>(links_.size()) - 1);
      core_->OnMessage(links_[rank], std::move(done), clock_->Now());
    }
  }

  // False if it died of it.
  bool Apply(const CommandMessage& command, DoneMessage& done) {
    if (const auto* admit = std::get_if<AdmitCommand>(&command.command)) {
      Admitted request{.plan = admit->plan};
      request.state = request.plan.seed;
      if (request.plan.snapshot.has_value()) {
        EXPECT_TRUE(SnapshotFits(request.plan, *request.plan.snapshot));
        request.steps = request.plan.snapshot->step;
        request.state = FromLatents(request.plan.snapshot->latents);
      }
      EXPECT_TRUE(admitted.emplace(request.plan.request_id, std::move(request)).second) << "admitted twice";
    } else if (const auto* release = std::get_if<ReleaseCommand>(&command.command)) {
      EXPECT_EQ(admitted.erase(release->request_id), 1u);
    } else {
      clock_->Advance(each);
      for (const Work& work : std::get<IterateCommand>(command.command).work) {
        if (deadly(work)) return false;
        executed.push_back(work);
        done.results.push_back(Compute(work));
      }
    }
    return true;
  }

  WorkResult Compute(const Work& work) {
    WorkResult result;
    result.request_id = work.request_id;
    result.kind = work.kind;
    result.index = work.index;
    result.seconds = absl::ToDoubleSeconds(each);
    EXPECT_TRUE(admitted.contains(work.request_id));
    Admitted& request = admitted[work.request_id];
    const RequestPlan& plan = request.plan;
    const auto prefilled = [&] { return request.blocks == static_cast<int32_t>(plan.prefix.size()); };
    switch (work.kind) {
      case WorkKind::kPrefill:
        EXPECT_EQ(work.index, request.blocks++);
        EXPECT_EQ(work.count, 0);
        break;
      case WorkKind::kDenoise:
        EXPECT_TRUE(prefilled());
        EXPECT_EQ(work.index, request.steps++);
        request.state = Mix(request.state + static_cast<uint64_t>(work.index));
        if (work.preview != PreviewMethod::kNone) result.preview = RgbImage{1, 1, {1, 2, 3}};
        if (work.snapshot) result.snapshot = Snapshot(request);
        break;
      case WorkKind::kDecode:
        EXPECT_EQ(request.steps, plan.sampler.num_steps);
        result.image = ToImage(request.state);
        break;
      case WorkKind::kAnswer: {
        EXPECT_TRUE(prefilled());
        EXPECT_EQ(work.index, request.tokens);
        const int32_t fed =
            request.tokens++ == 0 ? plan.answer->first_token_id : static_cast<int32_t>(request.state);
        const int32_t index = plan.answer->first_index + work.index;
        const bool ends = index + 1 >= answer_length || work.index + 1 == plan.answer->max_new_tokens;
        const int32_t id =
            index + 1 == answer_length ? plan.answer->stop_token_id : Token(plan.seed, index, fed);
        request.state = static_cast<uint64_t>(id);
        if (index < answer_length) result.token = AnswerToken{id, ends};
        break;
      }
      default:
        break;
    }
    return result;
  }

  // The state in the bits of the first latents.
  static LatentSnapshot Snapshot(const Admitted& request) {
    LatentSnapshot snapshot{.step = request.steps, .latents = {}, .previous_clean = {}};
    snapshot.latents.resize(request.plan.target.num_latents() * kLatentChannels);
    if (request.plan.sampler.solver == Solver::kDpmpp2m)
      snapshot.previous_clean.resize(snapshot.latents.size());
    for (int i = 0; i < 4; ++i) snapshot.latents[i].bits = static_cast<uint16_t>(request.state >> (16 * i));
    return snapshot;
  }
  static uint64_t FromLatents(const std::vector<bf16>& latents) {
    uint64_t state = 0;
    for (int i = 0; i < 4; ++i) state |= uint64_t{latents[i].bits} << (16 * i);
    return state;
  }
  static RgbImage ToImage(uint64_t state) {
    RgbImage image{3, 1, std::vector<uint8_t>(9)};
    for (int i = 0; i < 8; ++i) image.pixels[i] = static_cast<uint8_t>(state >> (8 * i));
    return image;
  }

  const std::string name_;
  std::vector<std::shared_ptr<FakeRankLink>> links_;
  DispatcherCore* const core_;
  FakeClock* const clock_;
  std::deque<std::pair<int, CoordinatorMessage>> inbox_;
  std::set<int> dismissed_;
};

// The picture of a finished request as FakeGroup makes it.
inline uint64_t StateOf(const RgbImage& image) {
  uint64_t state = 0;
  for (int i = 0; i < 8; ++i) state |= uint64_t{image.pixels[i]} << (8 * i);
  return state;
}

}  // namespace lancet

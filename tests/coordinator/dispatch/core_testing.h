// A core with fake groups and clients that keep what they read.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tests/coordinator/testing/byte_tokenizer.h"
#include "tests/coordinator/testing/fake_group.h"

namespace lancet {

// Encodes at once; a result's file is the picture's state as text.
class StateEncoder final : public ImageEncoder {
 public:
  void EncodePreview(const std::shared_ptr<PreviewSlot>&, int32_t step, RgbImage image,
                     const PreviewPlan& plan, const std::shared_ptr<EventSink>& sink) override {
    sink->Push(PreviewEvent{step, {plan.format, image.width, image.height, "preview"}});
  }
  void EncodeResult(RgbImage image, ImageFormat format, ResultCallback done) override {
    done(EncodedImage{format, image.width, image.height, FakeGroup::PictureBytes(StateOf(image))},
         absl::Milliseconds(5));
  }
};

class CoreWithGroups : public ::testing::Test {
 protected:
  CoreWithGroups() {
    options_.max_active = 4;
    options_.max_queue = 30;
    options_.max_calls = 30;
    options_.fingerprint = "f00d";
    // Clocks jump here by more than an iteration may take.
    options_.patience.least = options_.patience.most;
    options_.encoder = &encoder_;
    options_.registry.random = [] { return uint64_t{1}; };
    options_.post = [this](std::function<void(absl::Time)> task) {
      posted_.push_back(std::move(task));
      return true;
    };
    options_.on_readiness = [this](bool serving, bool) { serving_ = serving; };
  }

  void MakeCore() { core_ = std::make_unique<DispatcherCore>(options_); }
  // A group that serves.
  FakeGroup& AddGroup(const std::string& name, int world_size = 2, const std::string& numerics = "cpu") {
    if (core_ == nullptr) MakeCore();
    auto group = std::make_unique<FakeGroup>(name, world_size, core_.get(), &clock_);
    group->numerics = numerics;
    group->Serve();
    FakeGroup& added = *(groups_[name] = std::move(group));
    for (auto& [other, ranks] : groups_) ranks->Execute(0);  // answers pings
    return added;
  }

  NewRequest Drawing(uint64_t id, int steps) {
    NewRequest request;
    request.plan.request_id = id;
    request.plan.prefix.resize(2);
    for (PrefixBlock& block : request.plan.prefix) {
      for (auto* axis : {&block.positions.t, &block.positions.h, &block.positions.w}) axis->assign(2, 0);
    }
    request.plan.target.latent_height = 2;
    request.plan.target.latent_width = 2;
    request.plan.sampler.num_steps = steps;
    request.plan.seed = 1000 + id;
    return Arrived(std::move(request));
  }
  NewRequest Edit(uint64_t id, int steps) {
    NewRequest request = Drawing(id, steps);
    request.plan.vision_image = RgbImage{28, 28, std::vector<uint8_t>(3 * 28 * 28)};
    request.plan.condition_image = RgbImage{32, 32, std::vector<uint8_t>(3 * 32 * 32)};
    request.plan.prefix[0].kind = PrefixKind::kVision;
    request.plan.prefix[1].kind = PrefixKind::kLatents;
    return request;
  }
  NewRequest Question(uint64_t id, int max_new_tokens) {
    NewRequest request = Drawing(id, 1);
    request.plan.target = {};
    request.plan.answer.emplace();
    request.plan.answer->max_new_tokens = max_new_tokens;
    request.plan.answer->first_token_id = 7;
    request.plan.answer->first_position = 40;
    request.plan.answer->stop_token_id = kByteTokenizerEnd;
    request.text = std::make_unique<AnswerText>(tokenizer_.get());
    return request;
  }
  void Submit(NewRequest request) { core_->Submit(std::move(request), clock_.Now()); }

  void RunPosted() {
    while (!posted_.empty()) {
      auto task = std::move(posted_.front());
      posted_.pop_front();
      task(clock_.Now());
    }
  }
  // Lets all groups finish what there is.
  void ExecuteAll() {
    for (bool any = true; any;) {
      any = false;
      for (auto& [name, group] : groups_) any = group->Execute(1) || any;
      RunPosted();
    }
  }
  void Tick(absl::Duration after) {
    clock_.Advance(after);
    core_->Tick(clock_.Now());
    for (auto& [name, group] : groups_) group->Execute(0);
  }

  // What a client has heard, in words, since the last call.
  std::vector<std::string> Read(uint64_t call_id) {
    std::vector<std::string> words;
    while (auto next = streams_[call_id]->Take()) {
      if (auto* end = std::get_if<CallStatus>(&*next)) {
        ends_[call_id].push_back(*end);
        words.push_back(absl::StatusCodeToString(end->status.code()));
        break;
      }
      streams_[call_id]->Sent();
      const ClientEvent& event = std::get<ClientEvent>(*next);
      if (const auto* queued = std::get_if<QueuedEvent>(&event)) {
        words.push_back("queued " + std::to_string(queued->position));
      } else if (std::holds_alternative<StartedEvent>(event)) {
        words.push_back("started");
      } else if (const auto* progress = std::get_if<ProgressEvent>(&event)) {
        words.push_back("progress " + std::to_string(progress->step));
      } else if (const auto* preview = std::get_if<PreviewEvent>(&event)) {
        words.push_back("preview " + std::to_string(preview->step));
      } else if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
        words.push_back("delta " + delta->text);
        deltas_[call_id] += delta->text;
      } else if (const auto* text = std::get_if<TextResultEvent>(&event)) {
        words.push_back("text");
        texts_[call_id] = *text;
      } else {
        words.push_back("result");
        pictures_[call_id] = std::get<ResultEvent>(event).image.data;
      }
    }
    return words;
  }
  // The text of an undisturbed answer of `count` tokens.
  static std::string Answer(const RequestPlan& plan, int count) {
    std::string text;
    int32_t fed = plan.answer->first_token_id;
    for (int i = 0; i < count; ++i) text += static_cast<char>(fed = FakeGroup::Token(plan.seed, i, fed));
    return text;
  }
  static std::string Picture(const RequestPlan& plan) {
    return FakeGroup::PictureBytes(FakeGroup::Picture(plan));
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = ByteTokenizer();
  FakeClock clock_;
  StateEncoder encoder_;
  DispatcherCore::Options options_;
  std::unique_ptr<DispatcherCore> core_;
  std::map<std::string, std::unique_ptr<FakeGroup>> groups_;
  std::deque<std::function<void(absl::Time)>> posted_;
  bool serving_ = false;
  std::map<uint64_t, std::shared_ptr<EventStream>> streams_;  // by call
  std::map<uint64_t, std::vector<CallStatus>> ends_;
  std::map<uint64_t, std::string> deltas_;
  std::map<uint64_t, TextResultEvent> texts_;
  std::map<uint64_t, std::string> pictures_;

 private:
  NewRequest Arrived(NewRequest request) {
    request.arrival = clock_.Now();
    request.stream = std::make_shared<EventStream>(&clock_);
    streams_[request.plan.request_id] = request.stream;
    return request;
  }
};

}  // namespace lancet

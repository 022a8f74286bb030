#include "common/plan_resume.h"

#include <utility>

#include "common/model_config.h"

namespace lancet {

RequestPlan ResumeAnswer(const RequestPlan& plan, absl::Span<const int32_t> tokens) {
  RequestPlan resumed = plan;
  if (tokens.empty()) return resumed;
  AnswerParams& answer = *resumed.answer;
  const auto count = static_cast<int32_t>(tokens.size());
  PrefixBlock fed;
  fed.answered = true;
  fed.token_ids.push_back(answer.first_token_id);
  fed.token_ids.insert(fed.token_ids.end(), tokens.begin(), tokens.end() - 1);
  for (int32_t i = 0; i < count; ++i) {
    for (auto* axis : {&fed.positions.t, &fed.positions.h, &fed.positions.w})
      axis->push_back(answer.first_position + i);
  }
  resumed.prefix.push_back(std::move(fed));
  answer.first_token_id = tokens.back();
  answer.first_position += count;
  answer.max_new_tokens -= count;
  answer.first_index += count;
  return resumed;
}

bool SnapshotFits(const RequestPlan& plan, const LatentSnapshot& snapshot) {
  const auto values = static_cast<size_t>(plan.target.num_latents() * kLatentChannels);
  const size_t kept = plan.sampler.solver == Solver::kDpmpp2m ? values : 0;
  return plan.draws() && snapshot.step >= 1 && snapshot.step <= plan.sampler.num_steps &&
         snapshot.latents.size() == values && snapshot.previous_clean.size() == kept;
}

}  // namespace lancet

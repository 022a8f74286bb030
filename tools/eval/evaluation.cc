#include "tools/eval/evaluation.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/quote.h"
#include "common/status_macros.h"
#include "coordinator/request/answer_text.h"
#include "tools/eval/picture_metrics.h"

namespace lancet {
namespace {

class LatentKeeper final : public EngineTrace {
 public:
  void OnLatents(uint64_t /*request_id*/, int32_t /*steps_done*/, ConstMatrixView<bf16> now) override {
    latents.assign(now.data, now.data + now.rows * now.cols);
  }
  std::vector<bf16> latents;
};

// The first rank's trace, none for the others.
std::vector<EngineTrace*> FirstRank(const RankGroup& group, EngineTrace* trace) {
  std::vector<EngineTrace*> traces(static_cast<size_t>(group.world_size()), nullptr);
  traces[0] = trace;
  return traces;
}

class Mean {
 public:
  void Add(double value) {
    sum_ += value;
    ++count_;
  }
  std::optional<double> value() const {
    return count_ > 0 ? std::optional<double>(sum_ / count_) : std::nullopt;
  }

 private:
  double sum_ = 0;
  int count_ = 0;
};

absl::StatusOr<DrawnScores> ScoreDrawn(const std::vector<SetRequest>& requests,
                                       const std::vector<DrawnPicture>& drawn,
                                       const std::vector<DrawnPicture>& reference, const SceneJudge* judge) {
  DrawnScores scores;
  Mean ideal, psnr, ssim, latents;
  for (size_t i = 0; i < requests.size(); ++i) {
    const SetRequest& request = requests[i];
    const RgbImage& image = drawn[i].image;
    if (request.ideal.has_value() && request.ideal->width == image.width &&
        request.ideal->height == image.height) {
      LANCET_ASSIGN_OR_RETURN(const double decibels, Psnr(image, *request.ideal));
      ideal.Add(decibels);
    }
    LANCET_ASSIGN_OR_RETURN(const double decibels, Psnr(image, reference[i].image));
    psnr.Add(decibels);
    scores.least_psnr = std::min(scores.least_psnr.value_or(decibels), decibels);
    LANCET_ASSIGN_OR_RETURN(const double alike, Ssim(image, reference[i].image));
    ssim.Add(alike);
    LANCET_ASSIGN_OR_RETURN(const double error, RelativeError(drawn[i].latents, reference[i].latents));
    latents.Add(error);
    if (judge == nullptr || !request.scene.has_value()) continue;
    const absl::StatusOr<SceneVerdict> verdict = judge->Judge(image, *request.scene);
    if (!verdict.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the scene of ", Quote(request.text), ": ", verdict.status().message()));
    }
    ++scores.judged;
    scores.right += verdict->right ? 1 : 0;
  }
  scores.ideal_psnr = ideal.value();
  scores.psnr = psnr.value();
  scores.ssim = ssim.value();
  scores.latents = latents.value();
  return scores;
}

using Cell = std::optional<std::string>;

Cell Number(const char* format, std::optional<double> value) {
  if (!value.has_value()) return std::nullopt;
  return absl::StrFormat(absl::ParsedFormat<'f'>(format), *value);
}
Cell Share(int of, int all) { return all > 0 ? Cell(absl::StrCat(of, " of ", all)) : std::nullopt; }

struct Column {
  std::string title;
  std::vector<Cell> cells;  // by line
};

void AddDrawnColumns(const std::string& what, DrawnScores SetScores::*scores,
                     const std::vector<std::pair<std::string, SetScores>>& lines,
                     std::vector<Column>& columns) {
  Column right{what + ": right", {}}, ideal{"dB to the ideal", {}},
      psnr{"dB to the reference, mean / least", {}}, ssim{"SSIM", {}}, latents{"latents' error", {}};
  for (const auto& [name, line] : lines) {
    const DrawnScores& s = line.*scores;
    right.cells.push_back(Share(s.right, s.judged));
    ideal.cells.push_back(Number("%.1f", s.ideal_psnr));
    psnr.cells.push_back(s.psnr.has_value() ? Cell(absl::StrFormat("%.1f / %.1f", *s.psnr, *s.least_psnr))
                                            : std::nullopt);
    ssim.cells.push_back(Number("%.4f", s.ssim));
    latents.cells.push_back(Number("%.4f", s.latents));
  }
  // The first one that stays names the group.
  if (std::none_of(right.cells.begin(), right.cells.end(),
                   [](const Cell& cell) { return cell.has_value(); })) {
    Column& first =
        std::any_of(ideal.cells.begin(), ideal.cells.end(), [](const Cell& cell) { return cell.has_value(); })
            ? ideal
            : psnr;
    first.title = absl::StrCat(what, ": ", first.title);
  }
  for (Column* column : {&right, &ideal, &psnr, &ssim, &latents}) columns.push_back(std::move(*column));
}

}  // namespace

absl::StatusOr<SetOutputs> RunSet(RankGroup& group, const RequestSet& set,
                                  const std::function<void(const SetRequest&)>& progress) {
  SetOutputs outputs;
  for (const auto& [from, to] :
       {std::pair(&set.pictures, &outputs.pictures), std::pair(&set.edits, &outputs.edits)}) {
    for (const SetRequest& request : *from) {
      LatentKeeper keeper;
      LANCET_ASSIGN_OR_RETURN(const std::vector<WorkResult> results,
                              group.RunInPieces(request.plan, FirstRank(group, &keeper)));
      if (results.empty() || !results.back().image.has_value()) {
        return absl::InternalError(absl::StrCat("no picture came of ", Quote(request.text)));
      }
      to->push_back({*results.back().image, std::move(keeper.latents)});
      progress(request);
    }
  }
  for (const SetRequest& request : set.questions) {
    LANCET_ASSIGN_OR_RETURN(const std::vector<WorkResult> results,
                            group.RunInPieces(request.plan, FirstRank(group, nullptr)));
    AnswerText text(&set.builder->tokenizer());
    for (const WorkResult& result : results) {
      if (!result.token.has_value() || result.token->id == set.builder->end_of_turn_id()) continue;
      LANCET_RETURN_IF_ERROR(text.Add(result.token->id).status());
    }
    text.Finish();
    outputs.answers.push_back(text.text());
    progress(request);
  }
  return outputs;
}

absl::StatusOr<SetScores> ScoreSet(const RequestSet& set, const SetOutputs& outputs,
                                   const SetOutputs& reference, const SceneJudge* judge) {
  SetScores scores;
  LANCET_ASSIGN_OR_RETURN(scores.pictures,
                          ScoreDrawn(set.pictures, outputs.pictures, reference.pictures, judge));
  LANCET_ASSIGN_OR_RETURN(scores.edits, ScoreDrawn(set.edits, outputs.edits, reference.edits, judge));
  for (size_t i = 0; i < set.questions.size(); ++i) {
    ++scores.answers;
    scores.answers_same += outputs.answers[i] == reference.answers[i] ? 1 : 0;
    if (!set.questions[i].right_answer.has_value()) continue;
    ++scores.answers_known;
    scores.answers_right += outputs.answers[i] == *set.questions[i].right_answer ? 1 : 0;
  }
  return scores;
}

std::string ScoreTable(const std::vector<std::pair<std::string, SetScores>>& lines) {
  std::vector<Column> columns(1);
  for (const auto& [name, line] : lines) columns[0].cells.push_back(name);
  AddDrawnColumns("pictures", &SetScores::pictures, lines, columns);
  AddDrawnColumns("edits", &SetScores::edits, lines, columns);
  Column right{"answers: right", {}}, same{"answers: the reference's", {}};
  for (const auto& [name, line] : lines) {
    right.cells.push_back(Share(line.answers_right, line.answers_known));
    same.cells.push_back(Share(line.answers_same, line.answers));
  }
  columns.push_back(std::move(right));
  columns.push_back(std::move(same));
  columns.erase(std::remove_if(columns.begin(), columns.end(),
                               [](const Column& column) {
                                 return std::none_of(column.cells.begin(), column.cells.end(),
                                                     [](const Cell& cell) { return cell.has_value(); });
                               }),
                columns.end());
  std::string table = "|";
  for (const Column& column : columns) absl::StrAppend(&table, " ", column.title, " |");
  absl::StrAppend(&table, "\n|");
  for (size_t i = 0; i < columns.size(); ++i) absl::StrAppend(&table, "---|");
  for (size_t line = 0; line < lines.size(); ++line) {
    absl::StrAppend(&table, "\n|");
    for (const Column& column : columns) absl::StrAppend(&table, " ", column.cells[line].value_or(""), " |");
  }
  return table + "\n";
}

}  // namespace lancet

// The kinds of golden cases, each compared with the real code that serves requests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/bf16.h"
#include "common/checkpoint.h"
#include "tools/golden/cuda_stages.h"
#include "tools/golden/golden_case.h"
#include "tools/golden/golden_recorder.h"
#include "tools/golden/report.h"
#include "tools/requests/rank_group.h"

namespace lancet {

// What a run of lancet-golden works on.
struct GoldenContext {
  const Checkpoint& checkpoint;
  const GoldenFolder& folder;
  int world_size = 1;
  RankGroup& engines;
  GoldenReport& report;
  DeviceKind device = DeviceKind::kCpu;  // of the engines
  LinearMode mode = LinearMode::kW4A16;  // likewise
  LinearPolicy policy;                   // likewise, for the layers that are run without an engine
  CudaStages* cuda = nullptr;            // runs cases of single stages there; null: they run on the CPU
};

// Dispatches on the name and content of a case; a failure to run is a row of the report. Cases of a task that
// does not exist are listed as skipped.
void RunGoldenCase(const GoldenContext& context, const std::string& case_name);

// Adds the row of a quantity that has a bf16 trace: our distance to the fp64 trace whose weights are ours
// (rounded to bf16, or in w4a4 with two-level scales, if that trace was kept; else exact), in units of the
// bf16 trace's distance. `way` is put before the quantity in the report.
void CompareRms(const GoldenContext& context, const std::string& case_name, const std::string& quantity,
                const std::vector<double>& values, const StateDict& dict, const std::string& way = "");

// Entries of a bf16 table that differ. Library sines may fall on the other side of a rounding boundary: one
// entry in 10,000 may be off by one bf16 step; a difference of more than one step counts as many.
struct TableCount {
  int64_t count = 0;
  int64_t different = 0;
  int64_t far_off = 0;

  void Add(bf16 got, bf16 expected);
  void Report(const GoldenContext& context, const std::string& case_name, const std::string& quantity) const;
};

// The whole row of logits for one token from the ranks' parts, without ids that are never picked.
std::vector<double> JoinLogits(const std::vector<std::unique_ptr<Recorder>>& recorders, size_t token,
                               int64_t num_valid);

// Latents [height * width, 48] through the checkpoint's decoder: planes [3, 16 height, 16 width].
absl::StatusOr<std::vector<double>> DecodeLatents(const GoldenContext& context, const bf16* latents,
                                                  int64_t height, int64_t width);

// --- By subject; each adds its rows. ---
absl::Status RunLayerCase(const GoldenContext& context, const std::string& case_name);  // layer_*
absl::Status RunTimeEmbeddingCase(const GoldenContext& context, const std::string& case_name);
absl::Status RunTablesCase(const GoldenContext& context, const std::string& case_name);  // rope_latent_tables
// The vit.* part of rope_latent_tables.
absl::Status AddVisionTable(const GoldenContext& context, const std::string& case_name,
                            const StateDict& dict);
absl::Status RunVisionCase(const GoldenContext& context, const std::string& case_name);  // vit
absl::Status RunScheduleCase(const GoldenContext& context, const std::string& case_name);
absl::Status RunVaeCase(const GoldenContext& context, const std::string& case_name);
absl::Status RunNvfp4Case(const GoldenContext& context, const std::string& case_name);
absl::Status RunPhiloxCase(const GoldenContext& context, const std::string& case_name);
absl::Status RunTokenizerCase(const GoldenContext& context, const std::string& case_name);  // tokenizer_*
absl::Status RunPositionsCase(const GoldenContext& context,
                              const std::string& case_name);  // prompts_positions
absl::Status RunPreprocessCase(const GoldenContext& context, const std::string& case_name);
absl::Status RunPictureCase(const GoldenContext& context, const std::string& case_name);  // t2i, image_edit
absl::Status RunAnswerCase(const GoldenContext& context, const std::string& case_name);   // x2t_image

}  // namespace lancet

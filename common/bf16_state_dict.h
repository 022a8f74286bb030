// A checkpoint before quantisation as the engine reads it: F32 and F16 tensors rounded to bf16.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/bf16.h"
#include "common/state_dict.h"

namespace lancet {

// Thread-safe.
class Bf16StateDict final : public StateDict {
 public:
  // `source` outlives this.
  explicit Bf16StateDict(const StateDict* source) : source_(source) {}

  const std::vector<std::string>& names() const override { return source_->names(); }
  bool Contains(absl::string_view name) const override { return source_->Contains(name); }
  // A tensor of F32 or F16 is rounded (to nearest, ties to even) when it is first asked for, and kept: as
  // much memory as its bf16 form. Others are the source's.
  absl::StatusOr<TensorView> Get(absl::string_view name) const override;
  const std::string& path() const override { return source_->path(); }
  void Release(absl::string_view name) const override { source_->Release(name); }

 private:
  const StateDict* const source_;
  // std::mutex and not absl::Mutex: TSan sees its waits (worker/session.h).
  mutable std::mutex mu_;
  mutable absl::flat_hash_map<std::string, std::unique_ptr<bf16[]>> rounded_;
};

}  // namespace lancet

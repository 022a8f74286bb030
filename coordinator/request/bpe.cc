#include "coordinator/request/bpe.h"

#include <cstddef>
#include <functional>
#include <queue>
#include <tuple>

namespace lancet {
namespace {

// One token in the making; a doubly linked list in an array.
struct Symbol {
  int32_t id;
  int32_t prev;
  int32_t next;
};
constexpr int32_t kNone = -1;

// A join that was possible when it was noted. Stale if either token has changed since.
struct Candidate {
  int32_t rank;
  int32_t position;  // of the left symbol
  int32_t left;
  int32_t right;
  int32_t merged;

  friend bool operator>(const Candidate& a, const Candidate& b) {
    return std::tie(a.rank, a.position) > std::tie(b.rank, b.position);
  }
};

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

bool Bpe::AddMerge(int32_t left, int32_t right, int32_t merged) {
  const auto rank = static_cast<int32_t>(merges_.size());
  return merges_.try_emplace(PairKey(left, right), Merge{rank, merged}).second;
}

const Bpe::Merge* Bpe::Find(int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void Bpe::Encode(absl::string_view piece, std::vector<int32_t>& ids) const {
  const auto count = static_cast<int32_t>(piece.size());
  std::vector<Symbol> symbols(piece.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i] = {byte_ids_[static_cast<uint8_t>(piece[i])], i - 1, i + 1 < count ? i + 1 : kNone};
  }

  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto consider = [&](int32_t position) {
    if (position == kNone || symbols[position].next == kNone) return;
    const int32_t left = symbols[position].id;
    const int32_t right = symbols[symbols[position].next].id;
    if (const Merge* merge = Find(left, right)) {
      candidates.push({merge->rank, position, left, right, merge->merged});
    }
  };
  for (int32_t i = 0; i < count; ++i) consider(i);

  while (!candidates.empty()) {
    const Candidate top = candidates.top();
    candidates.pop();
    Symbol& left = symbols[top.position];
    if (left.id != top.left || left.next == kNone || symbols[left.next].id != top.right) continue;
    Symbol& right = symbols[left.next];
    left.id = top.merged;
    left.next = right.next;
    right.id = kNone;
    if (left.next != kNone) symbols[left.next].prev = top.position;
    consider(left.prev);
    consider(top.position);
  }

  for (int32_t i = count > 0 ? 0 : kNone; i != kNone; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace lancet

#include "common/pickle_reader.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Values that one pickle may make. 2,400 tensors make about 60,000; this bounds memory to some 100 MB.
constexpr int64_t kMaxValues = 1 << 21;
constexpr size_t kMaxDimensions = 8;

enum class Callable { kOrderedDict, kRebuildTensor, kRebuildParameter };

struct None {};
struct Mark {};
// Items [begin, begin + size) of the interpreter's tuple items.
struct Tuple {
  size_t begin = 0;
  size_t size = 0;
};
struct Dict {
  size_t index = 0;
};
struct StorageType {
  DType dtype = DType::kF32;
};
struct Storage {
  DType dtype = DType::kF32;
  absl::string_view key;
  int64_t elements = 0;
};
struct TensorIndex {
  size_t index = 0;
};
// Texts point into the pickle. Trivial to copy and destroy, so that no nesting of values can exhaust the
// stack.
using Value = std::variant<None, Mark, bool, int64_t, absl::string_view, Tuple, Dict, Callable, StorageType,
                           Storage, TensorIndex>;

struct StorageName {
  absl::string_view name;
  DType dtype;
};
constexpr std::array kStorageNames = {
    StorageName{"FloatStorage", DType::kF32}, StorageName{"DoubleStorage", DType::kF64},
    StorageName{"HalfStorage", DType::kF16},  StorageName{"BFloat16Storage", DType::kBf16},
    StorageName{"LongStorage", DType::kI64},  StorageName{"IntStorage", DType::kI32},
    StorageName{"ShortStorage", DType::kI16}, StorageName{"CharStorage", DType::kI8},
    StorageName{"ByteStorage", DType::kU8},   StorageName{"BoolStorage", DType::kBool},
};

std::optional<Value> FindGlobal(absl::string_view module, absl::string_view name) {
  if (module == "collections" && name == "OrderedDict") return Callable::kOrderedDict;
  if (module == "torch._utils" && name == "_rebuild_tensor_v2") return Callable::kRebuildTensor;
  if (module == "torch._utils" && name == "_rebuild_parameter") return Callable::kRebuildParameter;
  if (module == "torch") {
    for (const StorageName& storage : kStorageNames) {
      if (storage.name == name) return StorageType{storage.dtype};
    }
  }
  return std::nullopt;
}

class Interpreter {
 public:
  Interpreter(absl::string_view pickle, absl::string_view source) : pickle_(pickle), source_(source) {}

  absl::StatusOr<std::vector<PickledTensor>> Run() {
    while (!stopped_) {
      op_at_ = at_;
      LANCET_ASSIGN_OR_RETURN(const absl::string_view op, Take(1));
      LANCET_RETURN_IF_ERROR(Execute(static_cast<uint8_t>(op[0])));
      if (num_values_ > kMaxValues) return Error(absl::StrCat("makes more than ", kMaxValues, " values"));
    }
    return Result();
  }

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat(source_, ": pickle ", what, " (at its byte ", op_at_, ")"));
  }

  absl::StatusOr<absl::string_view> Take(size_t size) {
    if (size > pickle_.size() - at_) return Error("ends in the middle (truncated?)");
    at_ += size;
    return pickle_.substr(at_ - size, size);
  }
  absl::StatusOr<uint64_t> TakeNumber(size_t size) {
    LANCET_ASSIGN_OR_RETURN(const absl::string_view bytes, Take(size));
    uint64_t value = 0;
    for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
    return value;
  }
  absl::StatusOr<absl::string_view> TakeLine() {
    const size_t end = pickle_.find('\n', at_);
    if (end == absl::string_view::npos) return Error("ends in the middle (truncated?)");
    const absl::string_view line = pickle_.substr(at_, end - at_);
    at_ = end + 1;
    return line;
  }

  absl::Status Push(Value value) {
    stack_.push_back(value);
    ++num_values_;
    return absl::OkStatus();
  }
  absl::StatusOr<Value> Pop() {
    if (stack_.empty()) return Error("takes a value where none is");
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }
  template <typename T>
  absl::StatusOr<T> PopAs(absl::string_view what) {
    LANCET_ASSIGN_OR_RETURN(const Value value, Pop());
    if (const T* typed = std::get_if<T>(&value)) return *typed;
    return Error(absl::StrCat("has something else where ", what, " belongs"));
  }

  absl::Status Execute(uint8_t op);
  absl::Status Proto();
  absl::Status Global();
  absl::Status Text();
  absl::Status Long();
  absl::Status Integer(size_t size);
  absl::Status Remember(size_t index_bytes);
  absl::Status Recall(size_t index_bytes);
  absl::Status MakeTuple(size_t size);
  absl::Status MakeTupleToMark();
  absl::StatusOr<size_t> FindMark();
  absl::Status PersistentId();
  absl::Status Reduce();
  absl::Status RebuildTensor(Tuple arguments);
  absl::Status RebuildParameter(Tuple arguments);
  absl::Status MakeDict();
  absl::Status SetItem();
  absl::Status SetItems();
  absl::Status Build();
  absl::StatusOr<Shape> Extents(const Value& value, absl::string_view what);
  absl::Status CheckReach(const PickledTensor& tensor);
  absl::StatusOr<std::vector<PickledTensor>> Result();

  const Value& Item(Tuple tuple, size_t i) const { return tuple_items_[tuple.begin + i]; }

  const absl::string_view pickle_;
  const absl::string_view source_;
  size_t at_ = 0;
  size_t op_at_ = 0;
  bool stopped_ = false;
  int64_t num_values_ = 0;
  std::vector<Value> stack_;
  absl::flat_hash_map<uint64_t, Value> memo_;
  std::vector<Value> tuple_items_;
  std::vector<std::vector<std::pair<Value, Value>>> dicts_;
  std::vector<PickledTensor> tensors_;
};

absl::Status Interpreter::Execute(uint8_t op) {
  switch (op) {
    case 0x80:
      return Proto();
    case '.':
      stopped_ = true;
      return absl::OkStatus();
    case 'c':
      return Global();
    case 'q':
      return Remember(1);
    case 'r':
      return Remember(4);
    case 'h':
      return Recall(1);
    case 'j':
      return Recall(4);
    case '(':
      return Push(Mark{});
    case ')':
      return MakeTuple(0);
    case 0x85:
    case 0x86:
    case 0x87:
      return MakeTuple(op - 0x84);
    case 't':
      return MakeTupleToMark();
    case '}':
      return MakeDict();
    case 's':
      return SetItem();
    case 'u':
      return SetItems();
    case 'X':
      return Text();
    case 'K':
      return Integer(1);
    case 'M':
      return Integer(2);
    case 'J':
      return Integer(4);
    case 0x8a:
      return Long();
    case 'N':
      return Push(None{});
    case 0x88:
      return Push(true);
    case 0x89:
      return Push(false);
    case 'Q':
      return PersistentId();
    case 'R':
      return Reduce();
    case 'b':
      return Build();
    default:
      return Error(absl::StrFormat("uses opcode 0x%02x, which a flat dict of tensors does not need", op));
  }
}

absl::Status Interpreter::Proto() {
  LANCET_ASSIGN_OR_RETURN(const uint64_t version, TakeNumber(1));
  if (version == 2) return absl::OkStatus();
  return Error(absl::StrCat("has protocol ", version, "; expected 2, which torch.save writes"));
}

absl::Status Interpreter::Global() {
  LANCET_ASSIGN_OR_RETURN(const absl::string_view module, TakeLine());
  LANCET_ASSIGN_OR_RETURN(const absl::string_view name, TakeLine());
  const std::optional<Value> value = FindGlobal(module, name);
  if (value.has_value()) return Push(*value);
  return Error(absl::StrCat("asks for ", Quote(absl::StrCat(module, ".", name)),
                            "; only what a flat dict of tensors needs is allowed"));
}

absl::Status Interpreter::Text() {
  LANCET_ASSIGN_OR_RETURN(const uint64_t size, TakeNumber(4));
  LANCET_ASSIGN_OR_RETURN(const absl::string_view text, Take(size));
  return Push(text);
}

absl::Status Interpreter::Integer(size_t size) {
  LANCET_ASSIGN_OR_RETURN(const uint64_t value, TakeNumber(size));
  // Only the four-byte form is signed.
  return Push(size == 4 ? int64_t{static_cast<int32_t>(value)} : static_cast<int64_t>(value));
}

absl::Status Interpreter::Long() {
  LANCET_ASSIGN_OR_RETURN(const uint64_t size, TakeNumber(1));
  if (size > 8) return Error("holds an integer of more than 64 bits");
  LANCET_ASSIGN_OR_RETURN(const uint64_t value, TakeNumber(size));
  // Two's complement of `size` bytes.
  const int unused_bits = static_cast<int>(64 - 8 * size);
  return Push(size == 0 ? int64_t{0} : static_cast<int64_t>(value << unused_bits) >> unused_bits);
}

absl::Status Interpreter::Remember(size_t index_bytes) {
  LANCET_ASSIGN_OR_RETURN(const uint64_t index, TakeNumber(index_bytes));
  if (stack_.empty()) return Error("remembers a value where none is");
  memo_[index] = stack_.back();
  ++num_values_;
  return absl::OkStatus();
}

absl::Status Interpreter::Recall(size_t index_bytes) {
  LANCET_ASSIGN_OR_RETURN(const uint64_t index, TakeNumber(index_bytes));
  const auto it = memo_.find(index);
  if (it == memo_.end()) return Error(absl::StrCat("recalls value ", index, ", which it has not remembered"));
  return Push(it->second);
}

absl::Status Interpreter::MakeTuple(size_t size) {
  if (stack_.size() < size) return Error("takes a value where none is");
  const Tuple tuple{tuple_items_.size(), size};
  const auto first = stack_.end() - static_cast<std::ptrdiff_t>(size);
  if (std::any_of(first, stack_.end(), [](const Value& v) { return std::holds_alternative<Mark>(v); })) {
    return Error("takes a value where none is");
  }
  tuple_items_.insert(tuple_items_.end(), first, stack_.end());
  num_values_ += static_cast<int64_t>(size);
  stack_.resize(stack_.size() - size);
  return Push(tuple);
}

absl::StatusOr<size_t> Interpreter::FindMark() {
  for (size_t i = stack_.size(); i-- > 0;) {
    if (std::holds_alternative<Mark>(stack_[i])) return i;
  }
  return Error("looks for a mark that is not there");
}

absl::Status Interpreter::MakeTupleToMark() {
  LANCET_ASSIGN_OR_RETURN(const size_t mark, FindMark());
  LANCET_RETURN_IF_ERROR(MakeTuple(stack_.size() - mark - 1));
  stack_.erase(stack_.end() - 2);
  return absl::OkStatus();
}

absl::Status Interpreter::PersistentId() {
  LANCET_ASSIGN_OR_RETURN(const Tuple id, PopAs<Tuple>("the description of a storage"));
  // ('storage', type, key, location, elements); where it lay when saved does not matter.
  if (id.size == 5) {
    const auto* kind = std::get_if<absl::string_view>(&Item(id, 0));
    const auto* type = std::get_if<StorageType>(&Item(id, 1));
    const auto* key = std::get_if<absl::string_view>(&Item(id, 2));
    const auto* elements = std::get_if<int64_t>(&Item(id, 4));
    if (kind != nullptr && *kind == "storage" && type != nullptr && key != nullptr && elements != nullptr &&
        *elements >= 0) {
      return Push(Storage{type->dtype, *key, *elements});
    }
  }
  return Error("refers to something that is not a storage");
}

absl::Status Interpreter::Reduce() {
  LANCET_ASSIGN_OR_RETURN(const Tuple arguments, PopAs<Tuple>("a tuple of arguments"));
  LANCET_ASSIGN_OR_RETURN(const Callable callable, PopAs<Callable>("something to call"));
  switch (callable) {
    case Callable::kOrderedDict:
      if (arguments.size != 0) return Error("makes an OrderedDict from arguments");
      return MakeDict();
    case Callable::kRebuildTensor:
      return RebuildTensor(arguments);
    case Callable::kRebuildParameter:
      return RebuildParameter(arguments);
  }
  return Error("calls something unknown");
}

absl::StatusOr<Shape> Interpreter::Extents(const Value& value, absl::string_view what) {
  const Tuple* tuple = std::get_if<Tuple>(&value);
  if (tuple == nullptr) return Error(absl::StrCat("rebuilds a tensor whose ", what, " is not a tuple"));
  if (tuple->size > kMaxDimensions) {
    return Error(
        absl::StrCat("rebuilds a tensor of ", tuple->size, " dimensions; the limit is ", kMaxDimensions));
  }
  Shape extents;
  for (size_t i = 0; i < tuple->size; ++i) {
    const int64_t* extent = std::get_if<int64_t>(&Item(*tuple, i));
    if (extent == nullptr || *extent < 0) {
      return Error(
          absl::StrCat("rebuilds a tensor whose ", what, " holds something other than numbers >= 0"));
    }
    extents.push_back(*extent);
  }
  return extents;
}

// No element may lie outside of the storage. An empty tensor reaches none.
absl::Status Interpreter::CheckReach(const PickledTensor& tensor) {
  int64_t bytes = static_cast<int64_t>(DTypeSize(tensor.dtype));
  for (const int64_t extent : tensor.shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return Error("rebuilds a tensor too large to exist");
  }
  if (bytes == 0) return absl::OkStatus();
  int64_t last = tensor.offset;
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    int64_t step = 0;
    if (__builtin_mul_overflow(tensor.shape[d] - 1, tensor.strides[d], &step) ||
        __builtin_add_overflow(last, step, &last)) {
      return Error("rebuilds a tensor too large to exist");
    }
  }
  if (last >= tensor.storage_elements) {
    return Error(absl::StrCat("rebuilds a tensor of shape ", ShapeString(tensor.shape),
                              " that reaches element ", last, " of a storage of ", tensor.storage_elements));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::RebuildTensor(Tuple arguments) {
  // (storage, offset, shape, strides, requires_grad, backward_hooks[, metadata])
  if (arguments.size != 6 && arguments.size != 7)
    return Error("rebuilds a tensor from too few or too many arguments");
  if (arguments.size == 7 && !std::holds_alternative<None>(Item(arguments, 6))) {
    return Error("rebuilds a tensor with metadata, which is not known");
  }
  const Storage* storage = std::get_if<Storage>(&Item(arguments, 0));
  const int64_t* offset = std::get_if<int64_t>(&Item(arguments, 1));
  if (storage == nullptr) return Error("rebuilds a tensor from something that is not a storage");
  if (offset == nullptr || *offset < 0) return Error("rebuilds a tensor whose offset is not a number >= 0");
  PickledTensor tensor;
  tensor.storage_key = std::string(storage->key);
  tensor.dtype = storage->dtype;
  tensor.storage_elements = storage->elements;
  tensor.offset = *offset;
  LANCET_ASSIGN_OR_RETURN(tensor.shape, Extents(Item(arguments, 2), "shape"));
  LANCET_ASSIGN_OR_RETURN(tensor.strides, Extents(Item(arguments, 3), "strides"));
  if (tensor.shape.size() != tensor.strides.size())
    return Error("rebuilds a tensor with a stride too few or too many");
  LANCET_RETURN_IF_ERROR(CheckReach(tensor));
  tensors_.push_back(std::move(tensor));
  return Push(TensorIndex{tensors_.size() - 1});
}

absl::Status Interpreter::RebuildParameter(Tuple arguments) {
  // (tensor, requires_grad, backward_hooks): a parameter is its tensor.
  if (arguments.size != 3 || !std::holds_alternative<TensorIndex>(Item(arguments, 0))) {
    return Error("rebuilds a parameter from something that is not a tensor");
  }
  return Push(Item(arguments, 0));
}

absl::Status Interpreter::MakeDict() {
  dicts_.emplace_back();
  return Push(Dict{dicts_.size() - 1});
}

absl::Status Interpreter::SetItem() {
  LANCET_ASSIGN_OR_RETURN(const Value value, Pop());
  LANCET_ASSIGN_OR_RETURN(const Value key, Pop());
  LANCET_ASSIGN_OR_RETURN(const Dict dict, PopAs<Dict>("a dict"));
  dicts_[dict.index].emplace_back(key, value);
  return Push(dict);
}

absl::Status Interpreter::SetItems() {
  LANCET_ASSIGN_OR_RETURN(const size_t mark, FindMark());
  const size_t count = stack_.size() - mark - 1;
  if (count % 2 != 0) return Error("adds a key without a value");
  if (mark == 0 || !std::holds_alternative<Dict>(stack_[mark - 1])) {
    return Error("has something else where a dict belongs");
  }
  auto& entries = dicts_[std::get<Dict>(stack_[mark - 1]).index];
  for (size_t i = mark + 1; i < stack_.size(); i += 2) entries.emplace_back(stack_[i], stack_[i + 1]);
  stack_.resize(mark);
  num_values_ += static_cast<int64_t>(count);
  return absl::OkStatus();
}

absl::Status Interpreter::Build() {
  LANCET_RETURN_IF_ERROR(Pop().status());
  if (stack_.empty() || !std::holds_alternative<Dict>(stack_.back())) {
    return Error("sets the state of something other than a dict");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PickledTensor>> Interpreter::Result() {
  if (stack_.size() != 1 || !std::holds_alternative<Dict>(stack_.back())) {
    return Error("does not hold a dict of tensors");
  }
  std::vector<PickledTensor> result;
  absl::flat_hash_set<absl::string_view> names;
  for (const auto& [key, value] : dicts_[std::get<Dict>(stack_.back()).index]) {
    const auto* name = std::get_if<absl::string_view>(&key);
    if (name == nullptr) return Error("holds a dict with a key that is not text");
    if (std::holds_alternative<Dict>(value)) {
      return Error(absl::StrCat("holds a dict under ", Quote(*name),
                                "; only flat state dicts are read: save that inner one by itself"));
    }
    const auto* tensor = std::get_if<TensorIndex>(&value);
    if (tensor == nullptr)
      return Error(absl::StrCat("holds something other than a tensor under ", Quote(*name)));
    if (!names.insert(*name).second) return Error(absl::StrCat("holds ", Quote(*name), " twice"));
    result.push_back(tensors_[tensor->index]);
    result.back().name = std::string(*name);
  }
  return result;
}

}  // namespace

absl::StatusOr<std::vector<PickledTensor>> ParsePickledStateDict(absl::string_view pickle,
                                                                 absl::string_view source) {
  return Interpreter(pickle, source).Run();
}

}  // namespace lancet

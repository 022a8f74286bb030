#!/usr/bin/env bash
# Checks the CUDA backend on the GPU of this machine and prints what it found, one table a section.
#
#   scripts/gpu_check.sh                   builds (no gRPC needed), then checks
#   scripts/gpu_check.sh --prebuilt DIR    takes programs that were built elsewhere: DIR/kernels_cuda_test, lancet-golden,
#                                          engine_bench and cuda_bench, with libraries they need in DIR/lib
#   --quick                                leaves out compute-sanitizer
#
# Programs for another machine: cmake --preset cuda-release -DLANCET_PORTABLE=ON -DLANCET_SERVICES=OFF
#
# Exit code 0: every check passed. Measurements alone never fail it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

prebuilt=""
quick=0
while [[ $# -gt 0 ]]; do
  case "$1" in
    --prebuilt) prebuilt="${2:?--prebuilt needs a folder}"; shift 2 ;;
    --quick) quick=1; shift ;;
    *) echo "gpu_check.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done

if [[ -z "$prebuilt" ]]; then
  cmake --preset cuda-release -DLANCET_PORTABLE=ON -DLANCET_SERVICES=OFF
  cmake --build --preset cuda-release --target kernels_cuda_test lancet-golden engine_bench cuda_bench
  prebuilt="$(mktemp -d)"
  trap 'rm -rf "$prebuilt"' EXIT
  cp build/cuda-release/tests/kernels_cuda_test build/cuda-release/bin/{lancet-golden,engine_bench,cuda_bench} "$prebuilt/"
fi
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}:$prebuilt/lib"

failed=()
check() {  # NAME COMMAND...
  local name="$1"
  shift
  echo "=== $name"
  if "$@"; then echo "=== $name: passed"; else echo "=== $name: FAILED"; failed+=("$name"); fi
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true

check "kernels" "$prebuilt/kernels_cuda_test" --gtest_brief=1
if [[ $quick -eq 0 ]] && command -v compute-sanitizer > /dev/null; then
  # The libraries' own kernels are left out: what they read beyond a tile is their business.
  check "memcheck" compute-sanitizer --tool memcheck --error-exitcode 1 "$prebuilt/kernels_cuda_test" \
    --gtest_brief=1 '--gtest_filter=-*Matmul*:*Cudnn*'
  check "racecheck" compute-sanitizer --tool racecheck --error-exitcode 1 "$prebuilt/kernels_cuda_test" \
    --gtest_brief=1 '--gtest_filter=*Attention*:*FewRows*'
fi
for model in tests/data/nano models/demo; do
  [[ -d "$model/golden" ]] || continue
  check "goldens of $model" "$prebuilt/lancet-golden" --model_dir "$model" --golden "$model/golden" --device cuda
done
# Their own error is what is measured here: a lossier format may exceed the limit that holds for w4a16.
for model in tests/data/nano models/demo; do
  [[ -d "$model/golden" ]] || continue
  echo "=== goldens of $model, w4a8"
  "$prebuilt/lancet-golden" --model_dir "$model" --golden "$model/golden" --device cuda --mode w4a8 || true
done
echo "=== the model's sizes, random weights"
"$prebuilt/engine_bench" --device cuda || failed+=("engine_bench w4a16")
"$prebuilt/engine_bench" --device cuda --mode w4a8 || failed+=("engine_bench w4a8")
echo "=== kernels alone"
"$prebuilt/cuda_bench" || failed+=("cuda_bench")

if [[ ${#failed[@]} -gt 0 ]]; then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "all checks passed"

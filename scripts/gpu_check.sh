#!/usr/bin/env bash
# Checks the CUDA backend on the GPU of this machine and prints what it found, one table a section.
#
#   scripts/gpu_check.sh                   builds (no gRPC needed), then checks
#   scripts/gpu_check.sh --prebuilt DIR    takes programs that were built elsewhere: DIR/kernels_cuda_test, encoders_cuda_test,
#                                          engine_cuda_test, lancet-golden, engine_bench, cuda_bench and cuda_encoder_bench,
#                                          with libraries they need in DIR/lib
#   --quick                                leaves out compute-sanitizer and the benches
#   --ranks N                              groups of N ranks instead, a device each: needs device_collective_test,
#                                          engine_ranks_cuda_test, lancet-golden and engine_bench alone
#
# Programs for another machine: cmake --preset cuda-release -DLANCET_PORTABLE=ON -DLANCET_SERVICES=OFF
#
# Exit code 0: every check passed. Measurements alone never fail it.
set -euo pipefail
caller="$PWD"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

programs=(kernels_cuda_test encoders_cuda_test engine_cuda_test lancet-golden engine_bench cuda_bench cuda_encoder_bench)
prebuilt=""
quick=0
ranks=1
while [[ $# -gt 0 ]]; do
  case "$1" in
    --prebuilt) prebuilt="$(cd "$caller" && realpath "${2:?--prebuilt needs a folder}")"; shift 2 ;;
    --quick) quick=1; shift ;;
    --ranks) ranks="${2:?--ranks needs a number}"; shift 2 ;;
    *) echo "gpu_check.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done

if [[ ! "$ranks" =~ ^[1248]$ ]]; then
  echo "gpu_check.sh: --ranks is $ranks; expected 1, 2, 4 or 8" >&2
  exit 2
fi
if [[ $ranks -gt 1 ]]; then
  programs=(device_collective_test engine_ranks_cuda_test lancet-golden engine_bench)
fi

if [[ -z "$prebuilt" ]]; then
  cmake --preset cuda-release -DLANCET_PORTABLE=ON -DLANCET_SERVICES=OFF
  cmake --build --preset cuda-release --target "${programs[@]}"
  prebuilt="$(mktemp -d)"
  trap 'rm -rf "$prebuilt"' EXIT
  for program in "${programs[@]}"; do
    find build/cuda-release/{tests,bin} -maxdepth 1 -name "$program" -exec cp {} "$prebuilt/" \;
  done
fi
for program in "${programs[@]}"; do
  if [[ ! -x "$prebuilt/$program" ]]; then
    echo "gpu_check.sh: no program $prebuilt/$program" >&2
    exit 2
  fi
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$prebuilt/lib"

failed=()
check() {  # NAME SECONDS COMMAND...
  local name="$1" limit="$2" start=$SECONDS
  shift 2
  echo "=== $name"
  if timeout "$limit" "$@"; then
    echo "=== $name: passed, $((SECONDS - start)) s"
  else
    echo "=== $name: FAILED, $((SECONDS - start)) s"
    failed+=("$name")
  fi
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true

finish() {
  if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
  fi
  echo "all checks passed"
  exit 0
}

if [[ $ranks -gt 1 ]]; then
  devices="$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l)"
  if [[ $devices -lt $ranks ]]; then
    echo "gpu_check.sh: $ranks ranks want a device each; there are $devices" >&2
    exit 2
  fi
  check "collectives between devices" 600 "$prebuilt/device_collective_test" --gtest_brief=1
  check "engine of two ranks" 600 "$prebuilt/engine_ranks_cuda_test" --gtest_brief=1
  for model in tests/data/nano models/demo; do
    [[ -d "$model/golden" ]] || continue
    for transport in peer nccl; do
      check "goldens of $model, $ranks ranks, $transport" 300 "$prebuilt/lancet-golden" --model_dir "$model" \
        --golden "$model/golden" --device cuda --ranks "$ranks" --transport "$transport"
    done
  done
  if [[ $quick -eq 0 ]]; then
    for transport in peer nccl; do
      check "the model's sizes, random weights, $ranks ranks, $transport" 600 "$prebuilt/engine_bench" --device cuda \
        --ranks "$ranks" --transport "$transport"
    done
  fi
  finish
fi

check "kernels" 300 "$prebuilt/kernels_cuda_test" --gtest_brief=1
check "vision tower and autoencoder" 300 "$prebuilt/encoders_cuda_test" --gtest_brief=1
check "engine" 300 "$prebuilt/engine_cuda_test" --gtest_brief=1
if [[ $quick -eq 0 ]] && command -v compute-sanitizer > /dev/null; then
  # The libraries' own kernels are left out: what they read beyond a tile is their business.
  check "memcheck" 900 compute-sanitizer --tool memcheck --error-exitcode 1 "$prebuilt/kernels_cuda_test" \
    --gtest_brief=1 '--gtest_filter=-*Matmul*:*Cudnn*:*Convolution*'
  check "racecheck" 900 compute-sanitizer --tool racecheck --error-exitcode 1 "$prebuilt/kernels_cuda_test" \
    --gtest_brief=1 '--gtest_filter=*Attention*:*FewRows*:*Norms*:*Rotates*-*Matmul*:*Cudnn*:*Convolution*'
fi
for model in tests/data/nano models/demo; do
  [[ -d "$model/golden" ]] || continue
  check "goldens of $model" 300 "$prebuilt/lancet-golden" --model_dir "$model" --golden "$model/golden" --device cuda
done
# Not to the demo model: at sizes and pictures that it was not trained for, thirty guided steps carry what two roundings
# of one velocity differ by (which is within the limit) further than the goldens' own case, whose error is the limit.
check "random requests to tests/data/nano, against the CPU" 600 "$prebuilt/lancet-golden" --model_dir tests/data/nano \
  --golden tests/data/nano/golden --device cuda --against_cpu 12
check "number formats" 300 "$prebuilt/lancet-golden" --model_dir tests/data/nano --golden tests/data/golden --device cuda
# FP8 errs more than the reference's bf16 arithmetic, as its emulation on the CPU does: the limit is that of its tests.
for case in layer_gen layer_und t2i_64x64; do
  check "golden $case in w4a8_fp8" 300 "$prebuilt/lancet-golden" --model_dir tests/data/nano --golden tests/data/nano/golden \
    --device cuda --mode w4a8_fp8 --tolerance 14 --case "$case"
done
if [[ $quick -eq 0 ]]; then
  check "the model's sizes, random weights" 600 "$prebuilt/engine_bench" --device cuda
  check "the model's sizes, random weights, w4a8" 600 "$prebuilt/engine_bench" --device cuda --mode w4a8
  check "kernels alone" 300 "$prebuilt/cuda_bench"
  check "encoders of the release's sizes" 300 "$prebuilt/cuda_encoder_bench"
fi

finish

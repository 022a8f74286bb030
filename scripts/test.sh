#!/usr/bin/env bash
# Builds Lancet and runs its whole test suite: as released, with the CUDA backend where nvcc is found, under the address
# and undefined behaviour sanitizers, and, as far as it tells something there, under the thread sanitizer; then fuzzes
# for a few minutes. Goes on after a failure, sums up at the end, and exits with 1 if anything failed.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/test.sh [--quick | --full] [--help]

  --quick   the release build and its tests only; without CUDA, the sanitizers and the fuzz targets
  --full    also the end-to-end tests under the address sanitizer, which take a quarter of an hour there, and the
            tests that link gRPC under the thread sanitizer, where they are a smoke test (tests/tsan_grpc.supp says why)

Installs missing packages first (scripts/setup.sh). Build trees lie in build/{release,asan,tsan,fuzz}, what each stage
printed in build/logs.
END
}

quick=false
full=false
while [[ $# -gt 0 ]]; do
  case "$1" in
    --quick) quick=true ;;
    --full) full=true ;;
    -h | --help) usage; exit 0 ;;
    *) echo "test.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
logs=build/logs
mkdir -p "$logs"
jobs=$(nproc)
summary=()
failed=false

# stage NAME COMMAND...: runs it, keeps its output, and notes time and outcome.
stage() {
  local name=$1
  shift
  local log="$logs/${name// /-}.log" start=$SECONDS outcome=ok
  echo "== $name"
  if ! "$@" 2>&1 | tee "$log"; then
    outcome=FAILED
    failed=true
  fi
  local tests
  tests=$(grep -E '^[0-9]+% tests passed' "$log" | tail -n 1 || true)
  summary+=("$(printf '%-16s %-6s %5d s  %s' "$name" "$outcome" $((SECONDS - start)) "$tests")")
  [[ $outcome == ok ]]
}

# configure_and_build PRESET TARGETS...
configure_and_build() {
  local preset=$1
  shift
  cmake --preset "$preset" && cmake --build --preset "$preset" --parallel "$jobs" --target "$@"
}

# run_tests PRESET OPTIONS...
run_tests() {
  local preset=$1
  shift
  ctest --preset "$preset" --parallel "$jobs" "$@"
}

# The CUDA build, made in the release tree: what is compiled the same there is not compiled again. A plain
# `cmake --preset release` turns it off again. Fails on any warning.
cuda_build() {
  local output="$logs/cuda-compiler.log"
  cmake --preset release -DLANCET_CUDA=ON || return
  cmake --build --preset release --parallel "$jobs" --target all 2>&1 | tee "$output"
  if [[ ${PIPESTATUS[0]} -ne 0 ]]; then return 1; fi
  if grep -E 'warning( #[0-9]|:)' "$output"; then
    echo "test.sh: the CUDA build has warnings" >&2
    return 1
  fi
}

if [[ $quick == true ]]; then
  scripts/setup.sh
else
  scripts/setup.sh --fuzz
fi
# Tests that need these skip themselves where they are missing.
scripts/setup.sh --monitors --k8s || echo "test.sh: without Prometheus or the tools for k8s/" >&2
scripts/setup.sh --clients || echo "test.sh: without Go or the tools for clients/" >&2

if stage "release build" configure_and_build release all all_verify_interface_header_sets; then
  stage "release tests" run_tests release || true
fi
if [[ $quick == false ]]; then
  if command -v nvcc >/dev/null; then
    if stage "cuda build" cuda_build; then
      # Those that need no device; the others skip themselves where there is none.
      stage "cuda tests" run_tests release --label-regex '^(cuda|gpu)$' || true
    fi
  else
    summary+=("cuda build       skipped: nvcc is not found")
  fi
  if [[ $full == true ]]; then
    if stage "asan build" configure_and_build asan all; then
      stage "asan tests" run_tests asan || true
    fi
  elif stage "asan build" configure_and_build asan lancet_nogrpc_tests lancet_grpc_tests; then
    stage "asan tests" run_tests asan --label-exclude '^e2e$' || true
  fi
  # oneDNN is not instrumented, so TSan takes its cache, which ranks that are threads of one process share, for a
  # race; the preset turns that cache off.
  if stage "tsan build" configure_and_build tsan lancet_thread_tests; then
    stage "tsan tests" run_tests tsan --label-regex '^threads$' || true
  fi
  if [[ $full == true ]] && stage "tsan smoke build" configure_and_build tsan lancet_grpc_tests; then
    LANCET_TSAN_OPTIONS="suppressions=$PWD/tests/tsan_grpc.supp" \
      stage "tsan smoke tests" run_tests tsan --label-exclude '^(nogrpc|e2e|golden)$' || true
  fi
  if stage "fuzz build" configure_and_build fuzz all; then
    # 40 s each (tests/fuzz/README.md).
    stage "fuzz tests" ctest --preset fuzz --parallel 2 || true
  fi
fi

echo
echo "== summary, after $((SECONDS / 60)) min $((SECONDS % 60)) s"
printf '%s\n' "${summary[@]}"
[[ $failed == false ]]

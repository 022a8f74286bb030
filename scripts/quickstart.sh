#!/usr/bin/env bash
# Draws one picture with the bundled model: installs what is missing, builds, starts a coordinator and two workers that
# share the model between them, runs the command line client, and stops everything again.
#
#   ./scripts/quickstart.sh "a rocket in the top left, a panda in the top right, on a light blue background"
#   ./scripts/quickstart.sh "three waves" --seed 7 --show        further arguments go to `lancet generate`
#
# Pictures and logs go to ./lancet-out/<time>/; the last line on stdout is "result: PATH".
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly root
readonly bin="${root}/build/release/bin"
readonly model="${root}/models/demo"
readonly ranks=2
# Loading takes a second; this is for machines that are busy with something else.
readonly start_seconds=120
readonly stop_seconds=10

usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
}

say() {
  printf '%s\n' "$*" >&2
}

build() {
  "${root}/scripts/setup.sh" >&2
  (
    cd "${root}"
    if ! log="$(cmake --preset release 2>&1)"; then
      say "${log}"
      say "quickstart: configuring failed"
      exit 1
    fi
    cmake --build --preset release --target lancet lancet-coordinator lancet-worker >&2
  )
}

pids=()
out=""

# Ends what was started and waits for it; nothing is left behind, whatever happened.
stop_all() {
  local code=$?
  trap - EXIT INT TERM
  if ((${#pids[@]} > 0)); then
    kill -TERM "${pids[@]}" 2>/dev/null || true
    local deadline=$((SECONDS + stop_seconds))
    while kill -0 "${pids[@]}" 2>/dev/null && ((SECONDS < deadline)); do
      sleep 0.05
    done
    kill -KILL "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
  fi
  exit "${code}"
}

# The logs, then the reason.
fail() {
  local log
  for log in "${out}"/*.log; do
    say "--- ${log}"
    tail -n 20 "${log}" >&2 || true
  done
  say "quickstart: $*"
  exit 1
}

# wait_for WHAT COMMAND...: until the command succeeds, a process that was started ends, or time is up.
wait_for() {
  local what="$1"
  shift
  local deadline=$((SECONDS + start_seconds))
  local pid
  until "$@" >/dev/null 2>&1; do
    for pid in "${pids[@]}"; do
      kill -0 "${pid}" 2>/dev/null || fail "a process ended while waiting for ${what}"
    done
    ((SECONDS < deadline)) || fail "${what} not there after ${start_seconds} s"
    sleep 0.05
  done
}

group_serves() {
  "${bin}/lancet" info --server "$1" --timeout 5 | grep -q ': serving,'
}

main() {
  case "${1:-}" in
    "" | -h | --help)
      usage
      [[ -n "${1:-}" ]] || exit 2
      exit 0
      ;;
  esac
  build

  local base attempt=1
  base="lancet-out/$(date +%Y%m%d-%H%M%S)"
  out="${base}"
  mkdir -p lancet-out
  # Twice within a second: a folder of its own all the same.
  until mkdir "${out}" 2>/dev/null; do
    ((++attempt <= 100)) || { say "quickstart: cannot make the folder ${base}"; exit 1; }
    out="${base}-${attempt}"
  done
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM

  "${bin}/lancet-coordinator" --model_dir="${model}" --listen=127.0.0.1:0 --worker_listen=127.0.0.1:0 \
    --port_file="${out}/ports" >"${out}/coordinator.log" 2>&1 &
  pids+=($!)
  wait_for "the coordinator's ports" test -s "${out}/ports"
  local public_port worker_port
  read -r public_port worker_port <"${out}/ports"
  local rank
  for ((rank = 0; rank < ranks; ++rank)); do
    "${bin}/lancet-worker" --model_dir="${model}" --coordinator="127.0.0.1:${worker_port}" --rank="${rank}" \
      --world_size="${ranks}" >"${out}/worker-${rank}.log" 2>&1 &
    pids+=($!)
  done
  wait_for "a serving group" group_serves "127.0.0.1:${public_port}"
  rm -f "${out}/ports"

  say "pictures and logs: ${out}"
  local code=0
  "${bin}/lancet" generate "$1" --server "127.0.0.1:${public_port}" --previews 5 --out "${out}" "${@:2}" || code=$?
  case "${code}" in
    # Done; wrong arguments and Ctrl-C, of which the client has told all there is to tell.
    0 | 2 | 5) return "${code}" ;;
    *) fail "the request failed (exit code ${code})" ;;
  esac
}

main "$@"

#!/usr/bin/env bash
# Runs mixed load of all tasks on a small cluster and checks that nothing grows with its age: resident memory,
# descriptors and threads of each process, and what a request takes beside what it takes a cluster that was just
# started. Prints a table. Exits with 1 if something grows or a request goes wrong.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/soak.sh [--minutes N] [--seed S] [--preset P] [--help]

  --minutes N  for how long (default 60; at least 5, or nothing is told)
  --seed S     of the choice of requests (default: drawn, and printed)
  --preset P   the build to take (default release); it must be built already: soak_test and the programs

What counts as growth: docs/reliability.md.
END
}

minutes=60
seed=$((RANDOM + 1))
preset=release
while [[ $# -gt 0 ]]; do
  case "$1" in
    --minutes | --seed | --preset)
      [[ $# -ge 2 ]] || { echo "soak.sh: $1 needs a value" >&2; exit 2; }
      declare "${1#--}=$2"
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) echo "soak.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
[[ $minutes =~ ^[0-9]+$ && $minutes -ge 5 ]] || { echo "soak.sh: --minutes is '$minutes'; expected 5 or more" >&2; exit 2; }

cd "$(dirname "${BASH_SOURCE[0]}")/.."
echo "soak.sh: $minutes minutes, seed $seed"
LANCET_SOAK_MINUTES=$minutes LANCET_SOAK_SEED=$seed exec "build/$preset/tests/soak_test"

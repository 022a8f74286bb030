#!/usr/bin/env bash
# Kills, stops and restarts the processes of a small cluster at random under mixed load, and checks that every request
# ends once with the bytes of an undisturbed one. Exits with 1 if one does not.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/chaos.sh [--faults N] [--seed S] [--preset P] [--help]

  --faults N   how many faults (default 1000; some 2 s each)
  --seed S     which ones (default: drawn, and printed)
  --preset P   the build to take (default release); it must be built already: chaos_test and the programs
END
}

faults=1000
seed=$RANDOM
preset=release
while [[ $# -gt 0 ]]; do
  case "$1" in
    --faults | --seed | --preset)
      [[ $# -ge 2 ]] || { echo "chaos.sh: $1 needs a value" >&2; exit 2; }
      declare "${1#--}=$2"
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) echo "chaos.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
echo "chaos.sh: $faults faults, seed $seed"
LANCET_CHAOS_FAULTS=$faults LANCET_CHAOS_SEED=$seed exec "build/$preset/tests/chaos_test"

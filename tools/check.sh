#!/usr/bin/env bash
# What a change must pass before it is committed, besides its tests: format, lint, include direction, headers that
# compile alone, shell scripts. Needs the packages of scripts/setup.sh --lint. Prints every finding and exits with 1 if
# there is any.
set -euo pipefail

usage() {
  cat <<'END'
usage: tools/check.sh [--fix] [--fast] [--build DIR] [FILE...]

  --fix        lets clang-format rewrite the files instead of complaining
  --fast       without clang-tidy and the header build, which take minutes
  --build DIR  a configured build tree, for compile commands; default build/release
  FILE...      C++ sources to format and lint; default all
END
}

fix=false
fast=false
build=build/release
files=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --fix) fix=true ;;
    --fast) fast=true ;;
    --build)
      if [[ $# -lt 2 ]]; then
        echo "check.sh: --build needs a folder" >&2
        exit 2
      fi
      build=$2
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "check.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
    *) files+=("$(realpath "$1")") ;;
  esac
  shift
done

root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
build=$(realpath -m "$build")
cd "$root"
if [[ ${#files[@]} -eq 0 ]]; then
  mapfile -t files < <(find bench client common coordinator kernels protos tests tools worker \
    -name '*.h' -o -name '*.cc' | sort)
fi
mapfile -t scripts < <(find clients scripts tools tests .ci -type f \( -name '*.sh' -o -path .ci/run \) | sort)

failed=()
# check NAME COMMAND...
check() {
  echo "== $1"
  "${@:2}" || failed+=("$1")
}

format_options=(--dry-run -Werror)
if [[ $fix == true ]]; then
  format_options=(-i)
fi

lint() {
  local sources=() file
  # Headers are read through the sources that include them.
  for file in "${files[@]}"; do
    [[ $file == *.cc ]] && sources+=("$file")
  done
  printf '%s\0' "${sources[@]}" | xargs -0 -n 4 -P "$(nproc)" clang-tidy --quiet -p "$build"
}

headers() {
  cmake --build "$build" --target all_verify_interface_header_sets
}

check "clang-format" clang-format "${format_options[@]}" "${files[@]}"
check "includes" tools/check_includes.py
check "shellcheck" shellcheck "${scripts[@]}"
if [[ $fast == false ]]; then
  if [[ ! -f $build/compile_commands.json ]]; then
    cmake --preset release
  fi
  # Generated headers have to be there for sources that include them.
  check "generated code" cmake --build "$build" --target lancet_protos
  check "headers" headers
  check "clang-tidy" lint
fi

if [[ ${#failed[@]} -gt 0 ]]; then
  printf 'check.sh: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "check.sh: all good"

#!/usr/bin/env bash
# Makes the checked-in messages and stubs of the clients in Python and Go from protos/, with the distribution's
# generators (scripts/setup.sh --clients), so that users need none.
set -euo pipefail

usage() {
  cat <<'END'
usage: clients/generate.sh [--check] [python | go] [--help]

  --check       writes nothing; fails if a checked-in file is not what would be written
  python | go   those of one language; default both

Exits with 77 where a generator is missing or is not the one that the checked-in files come from.
END
}

check=false
languages=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --check) check=true ;;
    python | go) languages+=("$1") ;;
    -h | --help) usage; exit 0 ;;
    *) echo "generate.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
if [[ ${#languages[@]} -eq 0 ]]; then languages=(python go); fi

root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

# need PROGRAM [VERSION]: the version decides what is written; libraries of later ones read it all the same.
need() {
  local version=
  if command -v "$1" >/dev/null; then
    version=$("$1" --version 2>/dev/null </dev/null || true)
    [[ -n ${2-} && $version != "$2" ]] || return 0
  fi
  echo "generate.sh: skipped: ${version:-no $1}; the checked-in files come from ${2:-it}," \
    "which scripts/setup.sh --clients installs on Debian 12" >&2
  exit 77
}
need protoc "libprotoc 3.21.12"

make_python() {
  need grpc_python_plugin
  local out=$made/clients/python/src
  mkdir -p "$out/lancet/v1"
  protoc -I "$root/protos" --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
    --plugin=protoc-gen-grpc_python="$(command -v grpc_python_plugin)" lancet/v1/lancet.proto
  protoc -I "$root/clients/python/src" --python_out="$out" --pyi_out="$out" lancet/_details.proto
  cp "$root/protos/lancet/v1/service_config.json" "$out/lancet/v1/"
}

make_go() {
  need protoc-gen-go "protoc-gen-go v1.28.1"
  need protoc-gen-go-grpc "protoc-gen-go-grpc 1.0"
  local out=$made/examples/go/lancetv1 module=lancet.example/lancetv1
  local options=module=$module,Mlancet/v1/lancet.proto=$module
  mkdir -p "$out"
  protoc -I "$root/protos" --go_out="$out" --go_opt="$options" --go-grpc_out="$out" --go-grpc_opt="$options" \
    lancet/v1/lancet.proto
  cp "$root/protos/lancet/v1/service_config.json" "$out/"
}

for language in "${languages[@]}"; do "make_$language"; done

stale=false
while IFS= read -r file; do
  if [[ $check == false ]]; then
    install -D -m 644 "$made/$file" "$root/$file"
  elif ! cmp -s "$made/$file" "$root/$file"; then
    echo "generate.sh: $file is not current; clients/generate.sh writes it" >&2
    stale=true
  fi
done < <(cd "$made" && find . -type f -printf '%P\n' | sort)
[[ $stale == false ]]

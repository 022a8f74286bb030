#!/usr/bin/env bash
# Installs what building and testing Lancet needs on Debian 12 and Ubuntu 24.04, with apt. Safe to run again: when all
# is there it only looks, and changes nothing.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/setup.sh [--lint] [--fuzz] [--monitors] [--k8s] [--clients] [--help]

  --lint   also the tools of tools/check.sh (clang-format, clang-tidy, shellcheck)
  --fuzz   also what the fuzz targets need (clang and its sanitizers)
  --monitors  also Prometheus, for the test of the alert rules; where systemd runs, its package starts a service
  --k8s    also what the tests of k8s/ need (kubectl, if there is none, and Python's YAML and JSON schema modules)
  --clients  also what the tests of clients/ and of the example in Go need (Go with gRPC, their generators, pip, mypy)

Runs apt-get as root, or through sudo. Where neither works it prints the command to run and exits with 1.
END
}

# Development packages only: the names of the libraries they pull in differ between the distributions.
packages=(
  g++ cmake ninja-build pkg-config
  protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libgrpc++-dev libabsl-dev libssl-dev
  # oneDNN's package is built with OpenCL and its CMake files look for it.
  libdnnl-dev ocl-icd-opencl-dev
  libcpp-httplib-dev nlohmann-json3-dev libpcre2-dev libutf8proc-dev
  libpng-dev libjpeg-dev libwebp-dev zlib1g-dev
  libgtest-dev libgmock-dev libbenchmark-dev
  # The client in Python, which the tests run as well.
  python3 python3-grpcio python3-protobuf python3-pil
)
lint_packages=(clang clang-format clang-tidy shellcheck)
fuzz=false
k8s=false

while [[ $# -gt 0 ]]; do
  case "$1" in
    --lint) packages+=("${lint_packages[@]}") ;;
    --fuzz) fuzz=true; packages+=(clang) ;;
    --monitors) packages+=(prometheus) ;;
    --clients)
      packages+=(openssl python3-pip python3-setuptools python3-wheel mypy)
      # gRPC for Go works with more than one release of protobuf for Go, the generated code with this one.
      packages+=(golang-go golang-google-grpc-dev golang-google-protobuf-dev golang-github-golang-protobuf-1-5-dev)
      packages+=(protoc-gen-go protoc-gen-go-grpc)
      ;;
    --k8s) packages+=(python3-yaml python3-jsonschema iproute2 curl); k8s=true ;;
    -h | --help) usage; exit 0 ;;
    *) echo "setup.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "setup.sh: this is neither Debian nor Ubuntu. Lancet needs what these Debian packages hold:" >&2
  printf '  %s\n' "${packages[@]}" >&2
  exit 1
fi

# clang's sanitizers and libFuzzer are packaged by version: libclang-rt-14-dev on Debian 12, libclang-rt-18-dev on Ubuntu
# 24.04. Prints the name that belongs to the package `clang`; nothing while apt has no package lists.
clang_runtime() {
  apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]\+\)$/libclang-rt-\1-dev/p'
}
runtime=
if [[ $fuzz == true ]]; then
  runtime=$(clang_runtime || true)
  if [[ -n $runtime ]]; then packages+=("$runtime"); fi
fi

# Whoever has kubectl has one that fits their cluster.
if [[ $k8s == true ]] && ! command -v kubectl >/dev/null; then packages+=(kubernetes-client); fi

missing=()
for package in "${packages[@]}"; do
  # "ii": installed and configured. dpkg-query fails for a name it has never seen.
  state=$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  [[ $state == ii* ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  exit 0
fi

as_root=()
if [[ $EUID -ne 0 ]]; then
  # Without a terminal sudo must not need a password, with one it may ask.
  if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
    as_root=(sudo)
  else
    echo "setup.sh: these packages are missing, and this user may not install them. As root:" >&2
    echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
fi

echo "setup.sh: installing ${missing[*]}"
# Without `env`, sudo would drop the variable.
apt_get() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 "$@"
}
# An index that can't be refreshed may still be good enough.
apt_get update -q || echo "setup.sh: apt-get update failed; trying with the package lists at hand" >&2
if [[ $fuzz == true && -z $runtime ]]; then
  runtime=$(clang_runtime || true)
  missing+=("${runtime:-libclang-rt-dev}")
fi
if ! apt_get install -q -y --no-install-recommends "${missing[@]}"; then
  echo "setup.sh: apt-get could not install: ${missing[*]}" >&2
  exit 1
fi

#!/usr/bin/env bash
# Makes what k8s/secrets needs: certificates for both ports and for ranks, signed by authorities of their own whose keys are
# thrown away, and one bearer token. Files that exist are kept; remove k8s/secrets/files to begin anew.
#
#   k8s/make_secrets.sh [NAME...]   NAME: further names by which clients dial the Service, such as lance.example.org
#
# Afterwards k8s/secrets/files holds client_ca.crt and client_token for clients. Keep the folder to yourself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/secrets"

readonly days=825
if [[ -e files/tokens ]]; then
  echo "make_secrets.sh: k8s/secrets/files is there already; nothing done" >&2
  exit 0
fi
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/files"
cd "$work"

authority() {  # FILE NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days "$days" -subj "/CN=$2" \
    -keyout "$1.key" -out "files/$1.crt" 2>/dev/null
}
certificate() {  # FILE AUTHORITY NAME USAGE SAN...
  local file=$1 authority=$2 name=$3 usage=$4
  shift 4
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=$name" \
    -keyout "files/$file.key" -out "$file.csr" 2>/dev/null
  {
    echo "extendedKeyUsage=$usage"
    local IFS=,
    if [[ $# -gt 0 ]]; then echo "subjectAltName=$*"; fi
  } > "$file.ext"
  openssl x509 -req -in "$file.csr" -CA "files/$authority.crt" -CAkey "$authority.key" -CAcreateserial -days "$days" \
    -extfile "$file.ext" -out "files/$file.crt" 2>/dev/null
}

names=(DNS:lancet DNS:lancet.lancet DNS:lancet.lancet.svc DNS:lancet.lancet.svc.cluster.local DNS:localhost)
for name in "$@"; do names+=("DNS:$name"); done
authority client_ca "Lancet clients"
authority coordinator_ca "Lancet coordinator"
authority ranks_ca "Lancet ranks"
certificate public client_ca lancet serverAuth "${names[@]}"
certificate coordinator coordinator_ca lancet-workers serverAuth DNS:lancet-workers.lancet.svc \
  DNS:lancet-workers.lancet.svc.cluster.local
certificate rank ranks_ca lancet-rank clientAuth

openssl rand -hex 32 > files/client_token
hash=$(tr -d '\n' < files/client_token | sha256sum | cut -d' ' -f1)
echo "client sha256:$hash admin" > files/tokens
cd - > /dev/null
mkdir -p files
cp -n "$work"/files/* files/
echo "make_secrets.sh: wrote k8s/secrets/files; clients need client_ca.crt and client_token"

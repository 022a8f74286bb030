#!/usr/bin/env bash
# Measures what snapshots, TLS, mutual TLS of the ranks, tokens, traces and metrics cost a step: two servers of the demo
# model on this machine, one with all of it and one with none, asked in turn by serving_bench.
set -euo pipefail

usage() {
  cat <<'END'
usage: bench/guard_overhead.sh [--bin DIR] [--model_dir DIR] [--world_size N] [--rounds N] [--side PX] [--steps N]

Defaults: build/release/bin, models/demo, 2 ranks, 20 rounds of one picture each of 256 pixels and 30 steps. Needs openssl.
END
}

bin=build/release/bin model_dir=models/demo world_size=2 rounds=20 side=256 steps=30
while [[ $# -gt 0 ]]; do
  case "$1" in
    --bin) bin=$2; shift ;;
    --model_dir) model_dir=$2; shift ;;
    --world_size) world_size=$2; shift ;;
    --rounds) rounds=$2; shift ;;
    --side) side=$2; shift ;;
    --steps) steps=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "guard_overhead.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

work=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca \
  -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
for name in localhost rank; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$work/$name.key" \
    -out "$work/$name.csr" 2>/dev/null
  openssl x509 -req -days 2 -in "$work/$name.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial \
    -extfile <(echo "subjectAltName=DNS:$name") -out "$work/$name.pem" 2>/dev/null
done
openssl rand -hex 32 >"$work/token"
echo "bench sha256:$(tr -d '\n' <"$work/token" | sha256sum | cut -d' ' -f1) max_concurrent=8 queue_share=0.5" >"$work/tokens"

# start NAME COORDINATOR_FLAGS... -- WORKER_FLAGS...
start() {
  local name=$1 coordinator=() worker=() rank first=${#pids[@]}
  shift
  while [[ $1 != -- ]]; do coordinator+=("$1"); shift; done
  shift
  worker=("$@")
  "$bin/lancet-coordinator" --model_dir "$model_dir" --listen 127.0.0.1:0 --worker_listen 127.0.0.1:0 \
    --port_file "$work/$name.ports" "${coordinator[@]}" 2>"$work/$name.log" &
  pids+=($!)
  for _ in $(seq 200); do [[ -s $work/$name.ports ]] && break; sleep 0.1; done
  local worker_port
  worker_port=$(cut -d' ' -f2 "$work/$name.ports")
  for rank in $(seq 0 $((world_size - 1))); do
    "$bin/lancet-worker" --model_dir "$model_dir" --coordinator "127.0.0.1:$worker_port" --rank "$rank" \
      --world_size "$world_size" --threads 1 "${worker[@]}" 2>"$work/$name.$rank.log" &
    pids+=($!)
  done
  for _ in $(seq 600); do
    if grep -q ' ready$' "$work/$name.log"; then
      (IFS=,; echo "${pids[*]:first}") >"$work/$name.pids"
      return
    fi
    sleep 0.1
  done
  echo "guard_overhead.sh: the server '$name' did not come up" >&2
  cat "$work/$name".*log >&2
  exit 1
}

start plain --snapshot_steps 0 -- --log_format text
start guarded --metrics_listen 127.0.0.1:0 --token_file "$work/tokens" --tls_cert "$work/localhost.pem" \
  --tls_key "$work/localhost.key" --worker_tls_cert "$work/localhost.pem" --worker_tls_key "$work/localhost.key" \
  --worker_tls_ca "$work/ca.pem" -- --tls --tls_ca "$work/ca.pem" --tls_cert "$work/rank.pem" --tls_key "$work/rank.key" \
  --tls_server_name localhost
read -r guarded_port _ metrics_port <"$work/guarded.ports"
"$bin/serving_bench" --server "127.0.0.1:$(cut -d' ' -f1 "$work/plain.ports")" --guarded_server "127.0.0.1:$guarded_port" \
  --pids "$(<"$work/plain.pids")" --guarded_pids "$(<"$work/guarded.pids")" --guarded_ca "$work/ca.pem" --guarded_token_file "$work/token" --guarded_metrics "127.0.0.1:$metrics_port" \
  --sides "$side" --steps "$steps" --repetitions "$rounds"

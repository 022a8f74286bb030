#!/usr/bin/env bash
# Checks the types of clients/python; 77 without mypy. usage: python_types_test.sh CACHE_DIR
set -euo pipefail
if ! command -v mypy >/dev/null; then
  echo "skipped: mypy is not found; scripts/setup.sh --clients installs it"
  exit 77
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../../clients/python"
mypy --cache-dir="$1"

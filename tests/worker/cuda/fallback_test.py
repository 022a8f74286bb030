#!/usr/bin/env python3
"""Checks what a worker with the CUDA backend does where there is no device.

usage: fallback_test.py LANCET_WORKER MODEL_DIR

--device auto says so in one line and uses the CPU; --device cuda is refused.
"""

import select
import subprocess
import sys
import time

DEADLINE_S = 120


def start(worker, model_dir, *flags):
    # Nobody listens there: the worker loads its weights and keeps dialling.
    return subprocess.Popen([worker, "--model_dir", model_dir, "--coordinator", "127.0.0.1:1", "--max_pixels", "65536",
                             *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def log_until(process, text):
    """The lines up to the one that holds `text`, or all there are."""
    lines = []
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        ready, _, _ = select.select([process.stdout], [], [], 1.0)
        if not ready:
            continue
        line = process.stdout.readline()
        if not line:
            break
        lines.append(line.rstrip())
        if text in line:
            break
    return lines


def main():
    worker, model_dir = sys.argv[1], sys.argv[2]
    failures = []

    def check(ok, what, log):
        print(("ok   " if ok else "FAIL ") + what)
        if not ok:
            failures.append(what)
            print("\n".join(log))

    process = start(worker, model_dir, "--device", "auto")
    try:
        log = log_until(process, "dialling the coordinator")
    finally:
        process.kill()
        process.wait()
    said = [line for line in log if "using the CPU" in line]
    loaded = [line for line in log if "weights loaded" in line]
    check(len(said) == 1, "auto says once that it uses the CPU", log)
    check(len(said) == 1 and "reason=" in said[0], "and why", log)
    check(len(loaded) == 1 and 'device="cpu ' in loaded[0], "and loads the weights there", log)

    process = start(worker, model_dir, "--device", "cuda")
    try:
        output, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    check(process.returncode == 1 and "cannot build the engine" in output, "cuda alone is refused", output.splitlines())
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Checks which targets convert to E2M1 with the native instruction.

usage: native_fp4_test.py NVCC SOURCE_ROOT

Family targets of GPUs with FP4 units must use cvt.rn.satfinite.e2m1x2; older ones must not (they lack it) and must not
fall back to the header's emulation, which goes through doubles. (sm_80 lacks E4M3, too: there the header's conversion of
scales does go through doubles.)
"""

import pathlib
import subprocess
import sys

EXPECTED = {"80": False, "90a": False, "100f": True, "120f": True}


def ptx(nvcc, root, arch):
    command = [nvcc, "-std=c++20", "--expt-relaxed-constexpr", "-I", str(root), "-ptx", f"-arch=compute_{arch}", "-o", "-",
               str(root / "kernels/cuda/row_ops.cu")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    nvcc, root = sys.argv[1], pathlib.Path(sys.argv[2])
    failures = 0
    for arch, native in EXPECTED.items():
        code = ptx(nvcc, root, arch)
        found = "cvt.rn.satfinite.e2m1x2.f32" in code
        doubles = ".f64" in code and arch != "80"
        ok = found == native and not doubles
        failures += not ok
        print(f"{'ok  ' if ok else 'FAIL'} compute_{arch}: e2m1x2 {'native' if found else 'by integer steps'}"
              f"{', through doubles' if doubles else ''}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

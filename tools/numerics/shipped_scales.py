#!/usr/bin/env python3
"""Writes a copy of a model whose NVFP4 Linears use the E4M3 block scales that the checkpoint ships.

usage: shipped_scales.py MODEL_DIR OUT_DIR

Every scales_bf16 is overwritten with the values of scales_fp8 (times their factor, where nvfp4_meta.json has one), which
bf16 holds exactly; everything else is linked. Run the copy in w4a16 to see what those scales would do: `lancet-numerics model --other_model_dir OUT_DIR`.
"""

import json
import os
import pathlib
import struct
import sys

TRUNK = "nvfp4_state_dict.safetensors"


def e4m3_as_bf16(byte, factor):
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    value = mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
    if byte & 0x7F == 0x7F:
        value = float("nan")
    value *= factor
    bits = struct.unpack("<I", struct.pack("<f", -value if byte & 0x80 else value))[0]
    return struct.pack("<H", bits >> 16)


def patch(source, target):
    data = bytearray(source.read_bytes())
    (header_bytes,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_bytes])
    meta_path = source.with_name("nvfp4_meta.json")
    weights = json.loads(meta_path.read_text())["per_weight"] if meta_path.exists() else {}
    for name, tensor in header.items():
        if not name.endswith(".scales_fp8"):
            continue
        factor = weights.get(name[: -len("scales_fp8")] + "weight", {}).get("scales_fp8_factor", 1.0)
        table = [e4m3_as_bf16(byte, factor) for byte in range(256)]
        begin, end = (8 + header_bytes + offset for offset in tensor["data_offsets"])
        other = header[name[: -len("fp8")] + "bf16"]["data_offsets"]
        to = 8 + header_bytes + other[0]
        data[to : to + 2 * (end - begin)] = b"".join(table[byte] for byte in data[begin:end])
    target.write_bytes(data)


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    model, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    for folder, _, files in os.walk(model):
        to = out / pathlib.Path(folder).relative_to(model)
        to.mkdir(parents=True, exist_ok=True)
        for file in files:
            source = pathlib.Path(folder) / file
            if file == TRUNK:
                patch(source, to / file)
            elif not (to / file).exists():
                (to / file).symlink_to(source)
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Quantises a made-up checkpoint much larger than the memory that the quantiser may take, and looks at what it took.

usage: memory_test.py LANCET_QUANTIZE LLM_CONFIG

The promise: at most four times the largest tensor and 200 MB. The source is a sparse file of zeros in F32, so that it
costs no disk.
"""

import json
import os
import resource
import struct
import subprocess
import sys
import tempfile

HIDDEN, HEADS, KV_HEADS, INNER, LAYERS, VOCABULARY = 1024, 8, 2, 2816, 4, 1024
HEAD = HIDDEN // HEADS


def tensors():
    for layer in range(LAYERS):
        prefix = f"language_model.model.layers.{layer}."
        for gen in ("", "_moe_gen"):
            for name, rows in (("q", HIDDEN), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD)):
                yield f"{prefix}self_attn.{name}_proj{gen}.weight", [rows, HIDDEN]
                yield f"{prefix}self_attn.{name}_proj{gen}.bias", [rows]
            yield f"{prefix}self_attn.o_proj{gen}.weight", [HIDDEN, HIDDEN]
            for name in ("gate", "up"):
                yield f"{prefix}mlp{gen}.{name}_proj.weight", [INNER, HIDDEN]
            yield f"{prefix}mlp{gen}.down_proj.weight", [HIDDEN, INNER]
            for name in ("input_layernorm", "post_attention_layernorm"):
                yield f"{prefix}{name}{gen}.weight", [HIDDEN]
            for name in ("q_norm", "k_norm"):
                yield f"{prefix}self_attn.{name}{gen}.weight", [HEAD]
    for name in ("norm", "norm_moe_gen"):
        yield f"language_model.model.{name}.weight", [HIDDEN]
    yield "language_model.model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    yield "language_model.lm_head.weight", [VOCABULARY, HIDDEN]
    yield "time_embedder.mlp.0.weight", [HIDDEN, 256]
    yield "time_embedder.mlp.2.weight", [HIDDEN, HIDDEN]
    yield "vae2llm.weight", [HIDDEN, 48]
    yield "llm2vae.weight", [48, HIDDEN]
    for name, rows in (("time_embedder.mlp.0", HIDDEN), ("time_embedder.mlp.2", HIDDEN), ("vae2llm", HIDDEN), ("llm2vae", 48)):
        yield f"{name}.bias", [rows]


def write_source(folder, config_path):
    with open(config_path, encoding="utf-8") as file:
        config = json.load(file)
    config.update(hidden_size=HIDDEN, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, intermediate_size=INNER,
                  num_hidden_layers=LAYERS, vocab_size=VOCABULARY)
    with open(os.path.join(folder, "llm_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    header, offset, largest = {}, 0, 0
    for name, shape in tensors():
        size = 4
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
        largest = max(largest, size)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    return offset, largest


def main():
    program, config_path = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "Lance_3B")
        os.mkdir(source)
        total, largest = write_source(source, config_path)
        limit = 4 * largest + 200_000_000
        assert total > 1.4 * limit, (total, limit)
        subprocess.run([program, "--source", source, "--output", os.path.join(folder, "out")], check=True, timeout=240)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"source {total} bytes, largest tensor {largest}; peak {peak} bytes, limit {limit}")
        return 0 if peak <= limit else 1


if __name__ == "__main__":
    sys.exit(main())

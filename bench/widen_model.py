#!/usr/bin/env python3
"""Writes a checkpoint of the release's dimensions with few layers and random weights, for serving_bench.

    bench/widen_model.py tests/data/nano DIR [--layers N]

Tokenizer, autoencoder and vision tower are those of the small source model; only the tower's last product gets the new
width. Answers of such a model say nothing and never end early: the row of the stop token in the head is zero.
"""

import argparse
import json
import pathlib
import random
import shutil
import struct

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER = 2048, 16, 2, 128, 11008
BLOCK = 16  # weights per scale
NOISE = 1 << 20  # random bf16 numbers are repeated after this many


def bf16(value):
    return struct.pack("<f", value)[2:]


def repeat(pattern, count):
    """count bf16 numbers, out of those in the pattern."""
    size = 2 * count
    return (pattern * (size // len(pattern) + 1))[:size]


class Weights:
    def __init__(self):
        self.rng = random.Random(1)
        self.tensors = {}

    def codes(self, name, rows, cols):
        data = bytearray(self.rng.randbytes(rows * cols))
        # Each block has the largest code, as where scales come from the block's largest weight.
        data[:: BLOCK // 2] = b"\x77" * (len(data) // (BLOCK // 2))
        self.tensors[name] = ("U8", [rows, cols], bytes(data))

    def uniform(self, name, shape, low, high):
        pattern = b"".join(bf16(self.rng.uniform(low, high)) for _ in range(min(NOISE, shape[0] * 64)))
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        self.tensors[name] = ("BF16", shape, repeat(pattern, count))

    def linear(self, name, rows, cols):
        self.codes(name + ".qweight", rows, cols // 2)
        self.uniform(name + ".scales_bf16", [rows, cols // BLOCK], 0.002, 0.01)
        scales = self.rng.randbytes(rows * cols // BLOCK)
        self.tensors[name + ".scales_fp8"] = ("U8", [rows, cols // BLOCK], scales)

    def layer(self, prefix, suffix):
        attention, mlp = prefix + "self_attn.", prefix + "mlp" + suffix + "."
        for part, rows in (("q", HEADS * HEAD_DIM), ("k", KV_HEADS * HEAD_DIM), ("v", KV_HEADS * HEAD_DIM)):
            self.linear(f"{attention}{part}_proj{suffix}", rows, HIDDEN)
            self.uniform(f"{attention}{part}_proj{suffix}.bias", [rows], -0.1, 0.1)
        self.linear(f"{attention}o_proj{suffix}", HIDDEN, HEADS * HEAD_DIM)
        self.linear(mlp + "gate_proj", INNER, HIDDEN)
        self.linear(mlp + "up_proj", INNER, HIDDEN)
        self.linear(mlp + "down_proj", HIDDEN, INNER)
        for name, size in (
            (f"{attention}q_norm", HEAD_DIM),
            (f"{attention}k_norm", HEAD_DIM),
            (f"{prefix}input_layernorm", HIDDEN),
            (f"{prefix}post_attention_layernorm", HIDDEN),
        ):
            self.uniform(f"{name}{suffix}.weight", [size], 0.9, 1.1)

    def write(self, path):
        header, offset = {}, 0
        for name, (dtype, shape, data) in self.tensors.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
            offset += len(data)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, _, data in self.tensors.values():
                file.write(data)


def read_tensors(path):
    blob = path.read_bytes()
    (length,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8 : 8 + length])
    header.pop("__metadata__", None)
    data = blob[8 + length :]
    return {n: (t["dtype"], t["shape"], data[slice(*t["data_offsets"])]) for n, t in header.items()}


def trunk(config, layers):
    weights = Weights()
    vocabulary, model = config["vocab_size"], "language_model.model."
    weights.uniform(model + "embed_tokens.weight", [vocabulary, HIDDEN], -1, 1)
    weights.uniform("language_model.lm_head.weight", [vocabulary, HIDDEN], -1, 1)
    dtype, shape, head = weights.tensors["language_model.lm_head.weight"]
    begin = config["eos_token_id"] * 2 * HIDDEN
    head = head[:begin] + bytes(2 * HIDDEN) + head[begin + 2 * HIDDEN :]
    weights.tensors["language_model.lm_head.weight"] = (dtype, shape, head)
    for layer in range(layers):
        for suffix in ("", "_moe_gen"):
            weights.layer(f"{model}layers.{layer}.", suffix)
    for name in ("norm", "norm_moe_gen"):
        weights.uniform(f"{model}{name}.weight", [HIDDEN], 0.9, 1.1)
    for name, rows, cols in (
        ("time_embedder.mlp.0", HIDDEN, 256),
        ("time_embedder.mlp.2", HIDDEN, HIDDEN),
        ("vae2llm", HIDDEN, 48),
        ("llm2vae", 48, HIDDEN),
    ):
        weights.uniform(name + ".weight", [rows, cols], -0.1, 0.1)
        weights.uniform(name + ".bias", [rows], -0.1, 0.1)
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=2)
    args = parser.parse_args()

    shutil.copytree(args.source / "Lance_3B", args.target / "Lance_3B")
    shutil.copytree(args.source / "Qwen2.5-VL-ViT", args.target / "Qwen2.5-VL-ViT")
    shutil.copy(args.source / "Wan2.2_VAE.safetensors", args.target)
    folder = args.target / "Lance_3B-NVFP4"
    folder.mkdir()
    meta = json.loads((args.source / "Lance_3B-NVFP4/nvfp4_meta.json").read_text())
    config = json.loads((args.source / "Lance_3B/llm_config.json").read_text())

    weights = trunk(config, args.layers)
    weights.write(folder / "nvfp4_state_dict.safetensors")
    meta["per_weight"] = {
        name.replace(".qweight", ".weight"): {"shape": [shape[0], 2 * shape[1]], "block_size": BLOCK, "scheme": "nvfp4_minmax"}
        for name, (_, shape, _) in weights.tensors.items()
        if name.endswith(".qweight")
    }
    meta["awq_linears"], meta["plain_linears"] = 0, len(meta["per_weight"])
    (folder / "nvfp4_meta.json").write_text(json.dumps(meta))

    config.update(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=args.layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
    )
    config["vision_config"]["out_hidden_size"] = HIDDEN
    (args.target / "Lance_3B/llm_config.json").write_text(json.dumps(config))

    tower_path = args.target / "Qwen2.5-VL-ViT/vit.safetensors"
    tower = Weights()
    tower.tensors = read_tensors(tower_path)
    inner = tower.tensors["merger.mlp.2.weight"][1][1]
    tower.uniform("merger.mlp.2.weight", [HIDDEN, inner], -0.1, 0.1)
    tower.uniform("merger.mlp.2.bias", [HIDDEN], -0.1, 0.1)
    tower.write(tower_path)
    tower_config = json.loads((args.target / "Qwen2.5-VL-ViT/config.json").read_text())
    tower_config["out_hidden_size"] = HIDDEN
    (args.target / "Qwen2.5-VL-ViT/config.json").write_text(json.dumps(tower_config))


if __name__ == "__main__":
    main()

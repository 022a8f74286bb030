#!/usr/bin/env python3
"""Writes the trained model as a folder in the public layout: the F32 source of the trunk, vision tower, autoencoder,
tokenizer, words. With --plain also a quantised trunk without calibration, which is what a smoke run serves."""

import argparse
import json
import os
import shutil

import torch

import model_files
import safetensors_file

_E2M1 = torch.tensor(model_files.E2M1)
# Half way between neighbours; a tie goes to the lower code, as in the published quantiser.
_MIDDLES = (_E2M1[1:] + _E2M1[:-1]) / 2
BLOCK = 16


def is_quantised(name):
    return ".layers." in name and name.endswith(".weight") and ("_proj" in name)


def quantise(weight):
    """(codes [out, in / 2], scales f32 [out, in / 16]) with min/max scales: amax / 6 a block, nearest codes."""
    blocks = weight.to(torch.bfloat16).float().unflatten(1, (-1, BLOCK))
    scales = blocks.abs().amax(-1).clamp_min(1e-8) / 6
    ratio = blocks / scales[..., None]
    magnitude = torch.bucketize(ratio.abs().clamp_max(6.0), _MIDDLES)
    codes = (magnitude + 8 * (ratio < 0)).to(torch.uint8).flatten(1)
    return codes[:, 0::2] | (codes[:, 1::2] << 4), scales


def quantised_tensors(source):
    """({name: tensor}, meta) of the release layout, every Linear with the scheme nvfp4_minmax."""
    tensors, entries = {}, {}
    for name, tensor in source.items():
        if not is_quantised(name):
            tensors[name] = tensor.to(torch.bfloat16)
            continue
        base = name[: -len(".weight")]
        packed, scales = quantise(tensor)
        tensors[base + ".qweight"] = packed
        tensors[base + ".scales_bf16"] = scales.to(torch.bfloat16)
        tensors[base + ".scales_fp8"] = scales.to(torch.float8_e4m3fn).view(torch.uint8)
        entries[name] = {"shape": list(tensor.shape), "block_size": BLOCK, "scheme": "nvfp4_minmax"}
    meta = {
        "block_size": BLOCK,
        "scheme": "nvfp4_e2m1_block_fp8scale",
        "awq_linears": 0,
        "plain_linears": len(entries),
        "tasks_calibrated": [],
        "fp4_lut_pos": list(model_files.E2M1),
        "per_weight": entries,
    }
    return tensors, meta


def card():
    """lancet.json without colours of fast previews; lancet-fit-preview adds them."""
    from words import SIZES

    return {"name": "emoji-scenes", "default_size": list(SIZES[0][::-1]), "sizes": [[w, h] for h, w in SIZES]}


def export(work, out, plain=False):
    trained, _ = safetensors_file.load(os.path.join(work, "trunk.safetensors"))
    source = {name[len("trunk.") :]: tensor.float() for name, tensor in trained.items() if name.startswith("trunk.")}
    tower = {
        name[len("vision.") :]: tensor.to(torch.bfloat16)
        for name, tensor in trained.items()
        if name.startswith("vision.")
    }
    for part in ("Lance_3B", "Qwen2.5-VL-ViT"):
        os.makedirs(os.path.join(out, part), exist_ok=True)
    for name in ("llm_config.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copyfile(os.path.join(work, "Lance_3B", name), os.path.join(out, "Lance_3B", name))
    shutil.copyfile(
        os.path.join(work, "Qwen2.5-VL-ViT", "config.json"), os.path.join(out, "Qwen2.5-VL-ViT", "config.json")
    )
    safetensors_file.save(os.path.join(out, "Lance_3B", "model.safetensors"), source)
    safetensors_file.save(os.path.join(out, "Qwen2.5-VL-ViT", "vit.safetensors"), tower)
    for name in ("Wan2.2_VAE.safetensors", "words.json"):
        shutil.copyfile(os.path.join(work, name), os.path.join(out, name))
    with open(os.path.join(out, "lancet.json"), "w", encoding="utf-8") as file:
        json.dump(card(), file, indent=2)
    if plain:
        folder = os.path.join(out, "Lance_3B-NVFP4")
        os.makedirs(folder, exist_ok=True)
        tensors, meta = quantised_tensors(source)
        safetensors_file.save(os.path.join(folder, "nvfp4_state_dict.safetensors"), tensors)
        with open(os.path.join(folder, "nvfp4_meta.json"), "w", encoding="utf-8") as file:
            json.dump(meta, file)
        for name in ("llm_config.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
            shutil.copyfile(os.path.join(out, "Lance_3B", name), os.path.join(folder, name))
    # The bytes of what a server needs: the source is not among them.
    served = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(out)
        for name in names
        if not (os.path.basename(folder) == "Lance_3B" and name == "model.safetensors")
    ]
    return sum(os.path.getsize(path) for path in served)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--plain", action="store_true", help="quantise without calibration too")
    arguments = parser.parse_args()
    size = export(arguments.work, arguments.out, arguments.plain)
    print(f"{arguments.out}: {size / 1e6:.1f} MB without the source")


if __name__ == "__main__":
    main()

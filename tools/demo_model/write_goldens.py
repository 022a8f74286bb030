#!/usr/bin/env python3
"""Writes a model's end-to-end goldens: the cases of another folder (request, start noise, source picture), recomputed with
the model at hand in plain torch. For the commit that replaces the model.

Variants: fp64; fp64_wbf16 and fp64_2level (expanded weights rounded to bf16, scales re-encoded as E4M3 times a factor); bf16
(bf16 weights, stream and latents: the yardstick of errors); fp32, of which only errors are kept. Writes CASE.json,
CASE.safetensors, CASE.png, CASE.source.png and errors.json.
"""

import argparse
import json
import os
import shutil
import sys

import torch

import bpe
import model_files
import preview
import recompute_goldens as recompute
import safetensors_file
import sampler

VARIANTS = {
    "fp64": (torch.float64, model_files.EXACT),
    "bf16": (torch.bfloat16, model_files.BF16),
    "fp32": (torch.float32, model_files.EXACT),
    "fp64_wbf16": (torch.float64, model_files.BF16),
    "fp64_2level": (torch.float64, model_files.TWO_LEVEL),
}
ANSWER_TOKENS = 16


def runs(tokens):
    """[[id, count], ...]."""
    out = []
    for token in tokens:
        if out and out[-1][0] == token:
            out[-1][1] += 1
        else:
            out.append([token, 1])
    return out


def request_tokens(tokenizer, facts):
    """Every id of the request's rows, as the product lays them out."""
    pad = tokenizer.special["<|video_pad|>"]

    def picture(count):
        return [tokenizer.vision_start] + [pad] * count + [tokenizer.vision_end]

    user = tokenizer.encode(facts["prompt"]) + tokenizer.suffix()
    if facts["task"] == "t2i":
        latents = picture(facts["latent_grid"][1] * facts["latent_grid"][2])
        return tokenizer.prefix(bpe.SYSTEM["generate"]) + user + latents + [tokenizer.end]
    vision = picture(facts["vit_patch_grid"][1] * facts["vit_patch_grid"][2] // 4)
    if facts["task"] == "image_edit":
        latents = picture(facts["latent_grid"][1] * facts["latent_grid"][2])
        return tokenizer.prefix(bpe.SYSTEM["edit"]) + vision + latents + user + latents + [tokenizer.end]
    return tokenizer.prefix(bpe.SYSTEM["answer"]) + vision + user


def blocks(facts, tokenizer):
    """The case's blocks with the lengths of this tokenizer."""
    lengths = {
        "pre": len(
            tokenizer.prefix(bpe.SYSTEM[{"t2i": "generate", "image_edit": "edit"}.get(facts["task"], "answer")])
        ),
        "cap": len(tokenizer.encode(facts["prompt"])),
        "post": len(tokenizer.suffix()),
    }
    if facts["task"] == "x2t_image":  # question and POST are one block
        lengths["post"] += lengths["cap"]
    return [{**block, "length": lengths.get(block["name"], block["length"])} for block in facts["blocks"]]


def greedy(engine, case):
    """The first tokens of the answer."""
    height, width = (14 * side for side in case.facts["vit_patch_grid"][1:])
    features, grid = engine.see(recompute.vision_pixels(case.source, (height, width)))
    limit = engine.parts.tokenizer.special[bpe.ADDED[-1]] + 1
    answer = []
    while len(answer) < ANSWER_TOKENS and (not answer or answer[-1] != engine.parts.tokenizer.end):
        logits = engine.answer_logits([case.facts["prompt"]], features, grid, [answer])[0]
        answer.append(int(logits[-1, :limit].argmax()))
    return answer


def write_case(folder, model_dir, name, source_folder):
    """Computes all variants of a case; returns its part of errors.json."""
    case = recompute.Case(source_folder, name)
    is_answer = case.facts["task"] == "x2t_image"
    results, errors, answers = {}, {}, {}
    for variant, (dtype, weights) in VARIANTS.items():
        engine = sampler.Engine(model_files.Parts.load(model_dir, dtype, weights=weights))
        if is_answer:
            answers[variant] = greedy(engine, case)
            case.facts["answer_ids"] = {"fp64": answers["fp64"]}
            case.tensors["fp64.logits"] = torch.zeros(
                len(answers["fp64"]), engine.parts.tokenizer.special[bpe.ADDED[-1]] + 1
            )
        gains = []
        results[variant] = (
            recompute.run_answer(engine, case) if is_answer else recompute.run_picture(engine, case, gains)
        )
        case.facts.setdefault("gain", {})[variant] = [gain[0] for gain in gains]
        if "latents" in results[variant]:
            results[variant]["final"] = results[variant]["latents"][-1]
        print(f"{name}: {variant}", flush=True)
    for quantity, reference in results["fp64"].items():
        errors[quantity] = {}
        for variant in list(VARIANTS)[1:]:
            if quantity == "pixels" and variant.startswith("fp64_"):
                continue
            difference = results[variant][quantity].double() - reference
            errors[quantity][variant] = [float(difference.norm() / reference.norm()), float(difference.abs().max())]
    facts = dict(case.facts)
    tokenizer = engine.parts.tokenizer
    facts["token_ids"], facts["blocks"] = runs(request_tokens(tokenizer, facts)), blocks(facts, tokenizer)
    tensors = {} if is_answer else {"noise": case.tensors["noise"]}
    for quantity in results["fp64"]:
        if quantity not in ("pixels", "final"):
            tensors["fp64." + quantity] = results["fp64"][quantity].float()
            if quantity != "vit_features":
                tensors["bf16." + quantity] = results["bf16"][quantity].to(torch.bfloat16)
        if quantity == "final":
            for variant in ("fp64_wbf16", "fp64_2level"):
                tensors[f"{variant}.final"] = results[variant]["final"].float()
    if is_answer:
        del facts["gain"]
        facts["answer_ids"] = answers
        facts["answer_text"] = {variant: tokenizer.decode(ids) for variant, ids in answers.items()}
        best = {variant: result["logits"].double().topk(5, dim=1) for variant, result in results.items()}
        facts["top5_ids"] = {variant: top.indices.tolist() for variant, top in best.items()}
        facts["top5_logits"] = {variant: top.values.tolist() for variant, top in best.items()}
    else:
        ideal, rough = (recompute.picture_of(results[variant]) for variant in ("fp64", "bf16"))
        off = (ideal.int() - rough.int()).abs().double()
        facts["u8_bf16_vs_fp64"] = {
            "mean": float(off.mean()),
            "max": int(off.max()),
            "share_equal": float((off == 0).double().mean()),
        }
        preview.write_png(os.path.join(folder, name + ".png"), ideal)
    safetensors_file.save(os.path.join(folder, name + ".safetensors"), tensors)
    with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as file:
        json.dump(facts, file)
    if os.path.exists(case.source) and os.path.abspath(source_folder) != os.path.abspath(folder):
        shutil.copyfile(case.source, os.path.join(folder, name + ".source.png"))
    return errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--cases", required=True, help="folder of the cases to recompute, such as models/demo/golden")
    parser.add_argument("--out", required=True, help="folder to write, such as NEW_MODEL/golden")
    parser.add_argument("--case", action="append", help="only these; default: all")
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    names = arguments.case or recompute.case_names(arguments.cases)
    errors = {name: write_case(arguments.out, arguments.model_dir, name, arguments.cases) for name in names}
    with open(os.path.join(arguments.out, "errors.json"), "w", encoding="utf-8") as file:
        json.dump(errors, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())

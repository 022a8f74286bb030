#!/usr/bin/env python3
"""Makes what training reads: the atlas of glyphs, the tokenizer and the list of words. Needs no GPU and no torch model.

Output: OUT/atlas.safetensors, OUT/Lance_3B/{vocab.json, merges.txt, tokenizer_config.json, llm_config.json},
OUT/Qwen2.5-VL-ViT/config.json, OUT/words.json.
"""

import argparse
import json
import os
import random

import numpy
import torch

import bpe
import captions
import glyphs
import safetensors_file
import tasks
import words
from scenes import SceneSampler


def write_atlas(path, font_path, nameless_limit):
    font = glyphs.EmojiFont(font_path)
    characters = [character for character, _, _ in words.OBJECTS]
    characters += glyphs.nameless_characters(font)[:nameless_limit]
    pictures = numpy.stack([numpy.array(font.glyph(character)) for character in characters])
    names = glyphs.unknown_names()
    safetensors_file.save(path, {"glyphs": torch.from_numpy(pictures)}, {"unknown_names": json.dumps(names)})
    return names, len(characters) - len(words.OBJECTS)


def corpus(unknown_names, count=20000, seed=1):
    """Texts with the shares that training has, for the tokenizer; system prompts weigh little but are whole."""
    rng = random.Random(seed)
    sampler = SceneSampler(rng)
    texts = []
    for _ in range(count):
        texts.append(captions.sample_prompt(sampler, unknown_names)[0])
        kind = rng.random()
        if kind < 0.3:
            texts.append(tasks.sample_edit(sampler)[1])
        elif kind < 0.8:
            _, question, answer = tasks.sample_question(sampler, sampler.placed())
            texts += [question, answer]
    texts += [name for name in words.NAMES for _ in range(20)]
    for system in tuple(bpe.SYSTEM.values()) + bpe.OTHER_SYSTEM + ("system\n", "user\n", "assistant\n", "\n"):
        texts += [system] * 40
    return texts


def llm_config(tokenizer, hidden=512, layers=6, inner=1024, tower_depth=4):
    """llm_config.json: the public file's keys with the demo's sizes."""
    special = tokenizer.special
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": special["<|endoftext|>"],
        "eos_token_id": special["<|im_end|>"],
        "vision_start_token_id": special["<|vision_start|>"],
        "vision_end_token_id": special["<|vision_end|>"],
        "vision_token_id": special["<|vision_pad|>"],
        "image_token_id": special["<|image_pad|>"],
        "video_token_id": special["<|video_pad|>"],
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": inner,
        "max_position_embeddings": 128000,
        "max_window_layers": 70,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": hidden // 128,
        "num_hidden_layers": layers,
        "num_key_value_heads": min(2, hidden // 128),
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.49.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": -(-(len(tokenizer.vocab) + len(special)) // 16) * 16,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": vision_config(hidden, depth=tower_depth),
    }


def vision_config(out, hidden=240, depth=4):
    return {
        "depth": depth,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_heads": hidden // 80,
        "in_chans": 3,
        "out_hidden_size": out,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [index for index in range(depth) if index % 2 == 1],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    }


def write_json(path, value, indent=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=indent, ensure_ascii=False)
        file.write("\n")


def prepare(
    out,
    font_path=glyphs.FONT,
    nameless_limit=2000,
    corpus_size=20000,
    hidden=512,
    layers=6,
    inner=1024,
    tower_depth=4,
):
    os.makedirs(out, exist_ok=True)
    names, nameless = write_atlas(os.path.join(out, "atlas.safetensors"), font_path, nameless_limit)
    vocab, merges = bpe.train(corpus(names, corpus_size))
    bpe.write_files(os.path.join(out, "Lance_3B"), vocab, merges)
    tokenizer = bpe.Tokenizer(vocab, merges)
    config = llm_config(tokenizer, hidden, layers, inner, tower_depth)
    write_json(os.path.join(out, "Lance_3B", "llm_config.json"), config, 2)
    write_json(os.path.join(out, "Qwen2.5-VL-ViT", "config.json"), config["vision_config"], 2)
    write_json(
        os.path.join(out, "words.json"),
        {
            "objects": words.NAMES[:-1],
            "plural": words.PLURALS[:-1],
            "places": list(words.PLACES),
            "backgrounds": list(words.BACKGROUNDS),
        },
    )
    print(
        f"{len(words.OBJECTS)} named and {nameless} nameless glyphs, {len(names)} unknown names, "
        f"{len(merges)} merges: {out}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--font", default=glyphs.FONT)
    arguments = parser.parse_args()
    prepare(arguments.out, arguments.font)


if __name__ == "__main__":
    main()

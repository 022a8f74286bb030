"""Byte-level BPE with the public tokenizer's rules: training on a corpus, encoding, decoding, the three files."""

import collections
import functools
import json
import os
import re
import unicodedata

# The 22 added tokens of the public tokenizer, in the order of their ids, which follow the vocabulary.
ADDED = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
_NOT_SPECIAL = ADDED[14:]

# \p{L} and \p{N} of the public expression as Python's re knows them.
_PIECES = re.compile(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|(?:(?![\r\n])(?:\W|_))?[^\W\d_]+|\d|"
    r" ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_letters():
    """The printable stand-in of every byte."""
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters, extra = {}, 0
    for byte in range(256):
        letters[byte] = chr(byte) if byte in printable else chr(256 + extra)
        extra += byte not in printable
    return letters


_LETTERS = _byte_letters()
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}


def _split(text):
    return [
        "".join(_LETTERS[byte] for byte in piece.encode())
        for piece in _PIECES.findall(unicodedata.normalize("NFC", text))
    ]


class Tokenizer:
    def __init__(self, vocab, merges):
        self.vocab = vocab
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.pieces = {index: piece for piece, index in vocab.items()}
        self.special = {token: len(vocab) + index for index, token in enumerate(ADDED)}
        self.end = self.special["<|im_end|>"]
        self.vision_start = self.special["<|vision_start|>"]
        self.vision_end = self.special["<|vision_end|>"]
        self._encode_piece = functools.lru_cache(maxsize=65536)(self._encode_piece)

    @classmethod
    def load(cls, folder):
        with open(os.path.join(folder, "vocab.json"), encoding="utf-8") as file:
            vocab = json.load(file)
        with open(os.path.join(folder, "merges.txt"), encoding="utf-8") as file:
            merges = [tuple(line.split()) for line in file if line.strip() and not line.startswith("#version")]
        return cls(vocab, merges)

    def _encode_piece(self, piece):
        parts = list(piece)
        while len(parts) > 1:
            ranked = [(self.ranks.get(pair, len(self.ranks)), i) for i, pair in enumerate(zip(parts, parts[1:]))]
            rank, i = min(ranked)
            if rank == len(self.ranks):
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return tuple(self.vocab[part] for part in parts)

    def encode(self, text):
        """Ids of plain text (no special tokens in it)."""
        return [token for piece in _split(text) for token in self._encode_piece(piece)]

    def decode(self, tokens):
        letters = "".join(self.pieces.get(token, "") for token in tokens)
        return bytes(_BYTES[letter] for letter in letters).decode("utf-8", errors="replace")

    def prefix(self, system):
        """PRE: the template up to the user's text."""
        start = [self.special["<|im_start|>"]]
        return (
            start
            + self.encode("system\n")
            + self.encode(system)
            + [self.end]
            + self.encode("\n")
            + start
            + self.encode("user\n")
        )

    def suffix(self):
        """POST: from the end of the user's text to the assistant's first token."""
        return [self.end] + self.encode("\n") + [self.special["<|im_start|>"]] + self.encode("assistant\n")


SYSTEM = {
    "generate": "Describe the image by detailing the color, quantity, text, shape, size, texture, spatial relationships "
    "of the objects and background:",
    "edit": "Describe the key features of the input image (color, shape, size, texture, objects, background), then "
    "explain how the user\u2019s text instruction should alter or modify the image. Generate a new image that "
    "meets the user\u2019s requirements while maintaining consistency with the original input where appropriate.",
    "answer": "Look at the image carefully and answer the question.",
}
# Prompts of the public model's other tasks, so that their text costs few tokens too.
OTHER_SYSTEM = (
    "Describe the video by detailing the color, quantity, visible text, shape, size, texture, spatial relationships and "
    "motion/camera movements of the objects and background:",
    "Watch the video carefully and answer the question.",
    "View the image attentively and provide a suitable answer to the posed question.",
)


def train(texts, size=1000):
    """(vocab, merges) of `size` entries: 256 bytes and the most frequent pairs, ties by text."""
    counts = collections.Counter(piece for text in texts for piece in _split(text))
    order = [letter for _, letter in sorted((ord(letter), letter) for letter in _LETTERS.values())]
    vocab = {letter: index for index, letter in enumerate(order)}
    pieces = {piece: list(piece) for piece in counts}
    merges = []
    while len(vocab) < size:
        pairs = collections.Counter()
        for piece, parts in pieces.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += counts[piece]
        if not pairs:
            raise ValueError(f"a vocabulary of {size} needs more text: the corpus ran out of pairs at {len(vocab)}")
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        joined = best[0] + best[1]
        vocab.setdefault(joined, len(vocab))
        for piece, parts in pieces.items():
            if joined in piece and len(parts) > 1:
                merged, i = [], 0
                while i < len(parts):
                    if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                        merged.append(joined)
                        i += 2
                    else:
                        merged.append(parts[i])
                        i += 1
                pieces[piece] = merged
    return vocab, merges


def write_files(folder, vocab, merges):
    """vocab.json, merges.txt and tokenizer_config.json, as the public folders hold them."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as file:
        json.dump(vocab, file, ensure_ascii=False)
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as file:
        file.writelines(f"{first} {second}\n" for first, second in merges)
    added = {
        str(len(vocab) + index): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token not in _NOT_SPECIAL,
        }
        for index, token in enumerate(ADDED)
    }
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [token for token in ADDED[1:] if token not in _NOT_SPECIAL],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)

"""Loads and writes the parts of a model folder in the public layout."""

import json
import os

import torch

import autoencoder
import bpe
import safetensors_file
import trunk
import vision

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


EXACT, BF16, TWO_LEVEL = "exact", "bf16", "two_level"  # what an engine multiplies with


def dequantise(packed, scales, dtype=torch.float32, weights=EXACT):
    """[out, in] of NVFP4 codes [out, in / 2] (low nibble = even column) and scales [out, in / 16].

    weights: EXACT products; BF16: products rounded; TWO_LEVEL: scales as E4M3 times one factor, as tensor cores need.
    """
    codes = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1).long()
    values = torch.tensor(E2M1, dtype=dtype)[codes & 7] * (1 - 2 * (codes >> 3)).to(dtype)
    if weights == TWO_LEVEL:
        factor = scales.float().max() / 448
        scales = (scales.float() / factor).to(torch.float8_e4m3fn).to(dtype) * factor.to(dtype)
    product = values * scales.to(dtype).repeat_interleave(16, dim=1)
    return product.to(torch.bfloat16).to(dtype) if weights == BF16 else product


def trunk_tensors(path, dtype=torch.float32, weights=EXACT):
    """Public names and tensors of a trunk file; quantised Linears are expanded from scales_bf16."""
    stored, _ = safetensors_file.load(path)
    tensors = {}
    for name, tensor in stored.items():
        if name.endswith(".qweight"):
            base = name[: -len(".qweight")]
            tensors[base + ".weight"] = dequantise(tensor, stored[base + ".scales_bf16"], dtype, weights)
        elif not name.endswith((".scales_fp8", ".scales_bf16")) and name != "latent_pos_embed.pos_embed":
            tensors[name] = tensor.to(dtype)
    return tensors


def read_config(folder):
    with open(os.path.join(folder, "llm_config.json"), encoding="utf-8") as file:
        return json.load(file)


def load_trunk(path, config, dtype=torch.float32, weights=EXACT):
    model = trunk.Trunk(config).to(dtype)
    model.load_state_dict(trunk_tensors(path, dtype, weights))
    return model


def load_vision(folder, dtype=torch.float32):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    model = vision.VisionTower(config).to(dtype)
    tensors, _ = safetensors_file.load(os.path.join(folder, "vit.safetensors"))
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()})
    return model


# Convolutions that are 2-D in the public file as well; all others have a temporal axis there.
_TWO_DIMENSIONAL = ("resample.1.", "to_qkv.", "proj.", "middle.1.norm.")


def autoencoder_to_public(state):
    """The public shapes: a temporal axis of extent 1 on causal convolutions and their norms."""
    tensors = {}
    for name, tensor in state.items():
        flat = any(part in name for part in _TWO_DIMENSIONAL)
        if tensor.dim() == 4 and not flat:
            tensor = tensor[:, :, None]
        elif name.endswith(".gamma") and not flat:
            tensor = tensor[..., None]
        tensors[name] = tensor
    return tensors


def autoencoder_from_public(tensors, dtype=torch.float32):
    """The inverse; of full kernels the last temporal tap is taken, which is all that one frame uses."""
    state = {}
    for name, tensor in tensors.items():
        if "time_conv" in name:
            continue
        if tensor.dim() == 5:
            tensor = tensor[:, :, -1]
        elif name.endswith(".gamma"):
            tensor = tensor.reshape(-1, 1, 1)
        state[name] = tensor.to(dtype)
    return state


def load_autoencoder(path, dtype=torch.float32):
    tensors, _ = safetensors_file.load(path)
    state = autoencoder_from_public(tensors, dtype)
    model = autoencoder.Autoencoder(state["encoder.conv1.weight"].shape[0], state["decoder.head.0.gamma"].shape[0])
    model = model.to(dtype)
    model.load_state_dict(state)
    return model


class Parts:
    """Everything that serves a request: trunk, vision tower, autoencoder, tokenizer."""

    def __init__(self, trunk_model, vision_tower, auto, tokenizer, config):
        self.trunk, self.vision, self.autoencoder = trunk_model, vision_tower, auto
        self.tokenizer, self.config = tokenizer, config

    @classmethod
    def load(cls, folder, dtype=torch.float32, source=False, weights=EXACT):
        """From a model folder: its quantised trunk, or with `source` the file that it was made from."""
        part = "Lance_3B" if source else "Lance_3B-NVFP4"
        path = os.path.join(folder, part, "model.safetensors" if source else "nvfp4_state_dict.safetensors")
        # Beside the trunk, or with the source's, as lancet-quantize leaves them.
        beside = os.path.exists(os.path.join(folder, part, "llm_config.json"))
        texts = os.path.join(folder, part if beside else "Lance_3B")
        config = read_config(texts)
        auto_path = os.path.join(folder, "Wan2.2_VAE.safetensors")
        return cls(
            load_trunk(path, config, dtype, weights),
            load_vision(os.path.join(folder, "Qwen2.5-VL-ViT"), dtype),
            load_autoencoder(auto_path, dtype),
            bpe.Tokenizer.load(texts),
            config,
        )

    def to(self, device):
        for model in (self.trunk, self.vision, self.autoencoder):
            model.to(device)
        return self

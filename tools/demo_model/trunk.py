"""The Mixture-of-Transformers trunk in plain torch, parameters under the public names.

Rows come in two groups: und rows (text, vision features, markers) and gen rows (latents). Their order is free: positions
travel in rotary tables and visibility in an additive mask, so a batch is two dense tensors and no row is gathered.
"""

import torch
from torch import nn
from torch.nn import functional as F

import nvfp4
import tables

NORM_EPSILON = 1e-6
LATENT_CHANNELS = 48


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + NORM_EPSILON)
        # Rounded before the weight and after it, as the public code does.
        return (y.to(x.dtype).to(wide.dtype) * self.weight.to(wide.dtype)).to(x.dtype)


class Linear(nn.Linear):
    """A Linear that is NVFP4 in the release. rounding: a scalar tensor, 0 for the weight as it is, 1 for the weight that
    the quantised model has; gradients pass as if it were not rounded. None: never rounded."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_buffer("rounding", None, persistent=False)

    def forward(self, x):
        weight = self.weight
        if self.rounding is not None:
            weight = weight + (self.rounding * (nvfp4.rounded(weight) - weight)).detach()
        return F.linear(x, weight, self.bias)


class Mlp(nn.Module):
    def __init__(self, hidden, inner):
        super().__init__()
        self.gate_proj = Linear(hidden, inner, bias=False)
        self.up_proj = Linear(hidden, inner, bias=False)
        self.down_proj = Linear(inner, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Attention(nn.Module):
    def __init__(self, hidden, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        for suffix in ("", "_moe_gen"):
            for name, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
                setattr(self, f"{name}_proj{suffix}", Linear(hidden, rows * tables.HEAD))
            setattr(self, f"o_proj{suffix}", Linear(heads * tables.HEAD, hidden, bias=False))
            setattr(self, f"q_norm{suffix}", RmsNorm(tables.HEAD))
            setattr(self, f"k_norm{suffix}", RmsNorm(tables.HEAD))

    def project(self, x, suffix):
        """q, k, v [batch, heads, rows, 128] of one expert's rows; q and k are normalised."""
        parts = []
        for name, count in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):
            y = getattr(self, f"{name}_proj{suffix}")(x).unflatten(-1, (count, tables.HEAD)).transpose(1, 2)
            parts.append(y if name == "v" else getattr(self, f"{name}_norm{suffix}")(y))
        return parts

    def forward(self, und, gen, cos, sin, bias):
        q, k, v = self.project(und, "")
        if gen is not None:
            q, k, v = (torch.cat(pair, dim=2) for pair in zip((q, k, v), self.project(gen, "_moe_gen")))
        q, k = (tables.apply_rotary(x, cos[:, None], sin[:, None]).to(v.dtype) for x in (q, k))
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        rows = und.shape[1]
        return self.o_proj(y[:, :rows]), None if gen is None else self.o_proj_moe_gen(y[:, rows:])


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.self_attn = Attention(hidden, config["num_attention_heads"], config["num_key_value_heads"])
        self.mlp, self.mlp_moe_gen = Mlp(hidden, inner), Mlp(hidden, inner)
        for name in ("input_layernorm", "post_attention_layernorm"):
            for suffix in ("", "_moe_gen"):
                setattr(self, name + suffix, RmsNorm(hidden))

    def forward(self, und, gen, cos, sin, bias):
        gen_in = None if gen is None else self.input_layernorm_moe_gen(gen)
        und_out, gen_out = self.self_attn(self.input_layernorm(und), gen_in, cos, sin, bias)
        und = und + und_out
        und = und + self.mlp(self.post_attention_layernorm(und))
        if gen is not None:
            gen = gen + gen_out
            gen = gen + self.mlp_moe_gen(self.post_attention_layernorm_moe_gen(gen))
        return und, gen


class _Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm, self.norm_moe_gen = RmsNorm(config["hidden_size"]), RmsNorm(config["hidden_size"])


class _Language(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.model = _Model(config)
        self.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)


class _TimeEmbedder(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, hidden), nn.SiLU(), nn.Linear(hidden, hidden))


class Trunk(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        hidden = config["hidden_size"]
        self.language_model = _Language(config)
        self.time_embedder = _TimeEmbedder(hidden)
        self.vae2llm = nn.Linear(LATENT_CHANNELS, hidden)
        self.llm2vae = nn.Linear(hidden, LATENT_CHANNELS)
        self.layer_call = None  # a compiled Layer.forward, set by the trainer

    def embed(self, tokens):
        return self.language_model.model.embed_tokens(tokens)

    def embed_latents(self, latents, t, positions):
        """Gen rows [batch, n, hidden] of latents [batch, n, 48] at times t [batch]; positions [n, hidden] is the table."""
        features = tables.time_features(t, torch.float64 if latents.dtype == torch.float64 else torch.float32)
        time = self.time_embedder.mlp(features.to(self.vae2llm.weight.dtype))
        return self.vae2llm(latents) + time[:, None] + positions.to(time.dtype)

    def forward(self, und, gen, cos, sin, bias):
        """Normalised outputs of und [batch, u, hidden] and gen [batch, g, hidden] or None. cos, sin [batch, u + g, 64]
        and the additive mask bias [batch or 1, 1, u + g, u + g] run over und rows, then gen rows."""
        model = self.language_model.model
        for layer in model.layers:
            call = layer if self.layer_call is None else self.layer_call
            arguments = (und, gen, cos, sin, bias)
            und, gen = call(*arguments) if self.layer_call is None else call(layer, *arguments)
        return model.norm(und), None if gen is None else model.norm_moe_gen(gen)

    def logits(self, rows):
        return self.language_model.lm_head(rows)

    def velocity(self, rows):
        return self.llm2vae(rows)

#!/usr/bin/env python3
"""The strongest plain torch we could write for the same work, and what the device reaches at best: the rival of
`engine_bench --device cuda`, to be timed on the same machine in the same hour.

The release's sizes with random bf16 weights. The two branches of a guided pair are packed, q/k/v and gate/up
are one product each, a layer goes through torch.compile, and a whole pass is one CUDA graph. Without the
autoencoder, prefill and sampler: a step of the trunk and of the output head alone.

    bench/torch_rival.py [--sides 256,768,1024] [--sequences 1,8] [--eager]
"""

import argparse
import time

import torch
import torch.nn.functional as F

HIDDEN, INNER, HEADS, KV_HEADS, DIM, LAYERS, VOCABULARY = 2048, 11008, 16, 2, 128, 36, 151936
QKV = (HEADS + 2 * KV_HEADS) * DIM
PREFIX, KEYS = 64, 700
DEVICE, DTYPE = "cuda", torch.bfloat16


def weight(*shape):
    return torch.randn(*shape, device=DEVICE, dtype=DTYPE) * 0.02


def expert():
    return (torch.ones(HIDDEN, device=DEVICE, dtype=DTYPE), weight(QKV, HIDDEN), weight(QKV),
            torch.ones(DIM, device=DEVICE, dtype=DTYPE), torch.ones(DIM, device=DEVICE, dtype=DTYPE),
            weight(HIDDEN, HIDDEN), torch.ones(HIDDEN, device=DEVICE, dtype=DTYPE),
            weight(2 * INNER, HIDDEN), weight(HIDDEN, INNER))


def norm(x, w):
    return F.rms_norm(x, (x.shape[-1],), w, 1e-6)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def project(x, e, cos, sin):
    """Rows to rotated queries and keys, and values: [rows, heads, DIM]."""
    qkv = F.linear(norm(x, e[0]), e[1], e[2]).view(x.shape[0], HEADS + 2 * KV_HEADS, DIM)
    q, k, v = qkv.split((HEADS, KV_HEADS, KV_HEADS), 1)
    return rotate(norm(q, e[3]), cos, sin), rotate(norm(k, e[4]), cos, sin), v


def finish(x, attended, e):
    x = x + F.linear(attended, e[5])
    gate, up = F.linear(norm(x, e[6]), e[7]).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, e[8])


def attend(q, k, v):
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                          enable_gqa=True).transpose(1, 2)


def picture_layer(und, gen, und_expert, gen_expert, und_turn, gen_turn, cache_k, cache_v):
    """und: [2 branches], gen: [n branches]; caches [branches, PREFIX + 2 + n, KV_HEADS, DIM]."""
    branches = cache_k.shape[0]
    uq, uk, uv = project(und, und_expert, *und_turn)
    gq, gk, gv = project(gen, gen_expert, *gen_turn)
    for cache, from_und, from_gen in ((cache_k, uk, gk), (cache_v, uv, gv)):
        cache[:, PREFIX:PREFIX + 2] = from_und.view(branches, 2, KV_HEADS, DIM)
        cache[:, PREFIX + 2:] = from_gen.view(branches, -1, KV_HEADS, DIM)
    q = torch.cat((uq.view(branches, 2, HEADS, DIM), gq.view(branches, -1, HEADS, DIM)), 1)
    out = attend(q, cache_k, cache_v)
    und = finish(und, out[:, :2].reshape(-1, HIDDEN), und_expert)
    gen = finish(gen, out[:, 2:].reshape(-1, HIDDEN), gen_expert)
    return und, gen


def answer_layer(x, e, turn, cache_k, cache_v):
    """x: [sequences]; caches [sequences, KEYS, KV_HEADS, DIM], the last key is the new one."""
    q, k, v = project(x, e, *turn)
    cache_k[:, KEYS - 1] = k
    cache_v[:, KEYS - 1] = v
    return finish(x, attend(q.unsqueeze(1), cache_k, cache_v).reshape(-1, HIDDEN), e)


def turns(rows):
    angle = torch.rand(rows, 1, DIM // 2, device=DEVICE) * 6.28
    return angle.cos().to(DTYPE), angle.sin().to(DTYPE)


def timed(launch, repetitions):
    for _ in range(3):
        launch()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repetitions):
        launch()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repetitions


def captured(work):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def peaks():
    a, b = weight(8192, 8192), weight(8192, 8192)
    seconds = timed(lambda: a @ b.T, 20)
    print(f"bf16 product of 8192^3: {2 * 8192**3 / seconds * 1e-12:.0f} TFLOP/s")
    source = torch.empty(1 << 31, device=DEVICE, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), 20)
    print(f"copy: {2 * source.numel() / seconds * 1e-9:.0f} GB/s read + written")


def picture(layer, experts, side):
    n = (side // 16) ** 2
    results = {}
    for branches in (2, 1):
        und_turn, gen_turn = turns(2 * branches), turns(n * branches)
        caches = [tuple(weight(branches, PREFIX + 2 + n, KV_HEADS, DIM) for _ in range(2)) for _ in range(LAYERS)]
        und_in, gen_in = weight(2 * branches, HIDDEN), weight(n * branches, HIDDEN)

        def run():
            und, gen = und_in, gen_in
            for (und_expert, gen_expert), (k, v) in zip(experts, caches):
                und, gen = layer(und, gen, und_expert, gen_expert, und_turn, gen_turn, k, v)
            return gen

        results[branches] = timed(captured(run), 10)
        del caches
    total = 26 * results[2] + 4 * results[1]
    print(f"{side:4d} x {side:<4d} pair {results[2] * 1e3:7.2f} ms, single {results[1] * 1e3:7.2f} ms, "
          f"26 pairs and 4 singles {total:6.3f} s", flush=True)


def answers(layer, experts, head, sequences):
    turn = turns(sequences)
    caches = [tuple(weight(sequences, KEYS, KV_HEADS, DIM) for _ in range(2)) for _ in range(LAYERS)]
    x_in, last_norm = weight(sequences, HIDDEN), torch.ones(HIDDEN, device=DEVICE, dtype=DTYPE)

    def run():
        x = x_in
        for (und_expert, _), (k, v) in zip(experts, caches):
            x = layer(x, und_expert, turn, k, v)
        return F.linear(norm(x, last_norm), head).argmax(-1)

    seconds = timed(captured(run), 50)
    print(f"answers, {sequences} sequences after {KEYS} tokens: {seconds * 1e3:.3f} ms a token, "
          f"{sequences / seconds:.0f} tokens/s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", default="256,768,1024")
    parser.add_argument("--sequences", default="1,8")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    args = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    with torch.inference_mode():
        peaks()
        experts = [(expert(), expert()) for _ in range(LAYERS)]
        head = weight(VOCABULARY, HIDDEN)
        compiled = (lambda f: f) if args.eager else (lambda f: torch.compile(f, dynamic=False))
        for side in map(int, filter(None, args.sides.split(","))):
            picture(compiled(picture_layer), experts, side)
        for sequences in map(int, filter(None, args.sequences.split(","))):
            answers(compiled(answer_layer), experts, head, sequences)


if __name__ == "__main__":
    main()

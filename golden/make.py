#!/usr/bin/env python3
"""Makes kv-slices (`kv-slice/1`) from the model that the golden slices come from, and checks that it
still makes the golden ones.

    python golden/make.py --check
    python golden/make.py --prompt "Once upon a time" --layer 7 -o my.safetensors

How to install what it needs is in golden/README.md; it reads nothing from the network.
"""

import argparse
import json
import os
import platform
import struct
import sys
from pathlib import Path

# The order in which OpenBLAS adds up, and so the last bits of every linear layer, depends on the
# kernels that it picks for the processor and on the number of threads. The golden slices were made
# with these; whoever sets the variables otherwise gets other last bits, which --check allows for.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import numpy as np  # noqa: E402

from smollm2 import MODEL, Cache, Gguf, Llama, Tokeniser, attention, model_file  # noqa: E402

HERE = Path(__file__).resolve().parent
DTYPES = {"f32": np.float32, "f16": np.float16}
STORED = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
# What the cache held before: the text in prompts/stale.txt, as many tokens.
STALE, STALE_TOKENS = "stale", 1024


# The safetensors container: https://github.com/huggingface/safetensors#format


def read_slice(path):
    """Metadata and tensors of a file."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    tensors = {}
    for name, info in header.items():
        start, end = (8 + length + at for at in info["data_offsets"])
        tensors[name] = np.frombuffer(data[start:end], STORED[info["dtype"]]).reshape(info["shape"])
    return metadata, tensors


def write_slice(path, metadata, tensors):
    """The widest type first, then by name, so that every tensor is aligned; the data start at a
    multiple of 8. Equal content gives equal bytes."""
    names = sorted(tensors, key=lambda n: (-tensors[n].itemsize, n))
    header, at = {"__metadata__": dict(sorted(metadata.items()))}, 0
    for name in names:
        t = tensors[name]
        kind = next(k for k, v in STORED.items() if v == t.dtype)
        header[name] = {"dtype": kind, "shape": t.shape, "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(np.ascontiguousarray(tensors[name]).tobytes())


class Capture:
    """What is in the cache, and every layer's q, after a prompt and some steps of greedy decoding."""

    def __init__(self, cache, q, seq_len):
        self.cache, self.q, self.seq_len = cache, q, seq_len


class Maker:
    """Runs prompts and cuts slices out of the runs. A run is kept: slices of one prompt share it."""

    def __init__(self, llama, tokeniser, say):
        self.llama, self.tokeniser, self.say = llama, tokeniser, say
        self.runs, self.stale = {}, {}

    def stale_cache(self, capacity):
        """What an earlier run left: `prompts/stale.txt`, repeated where the capacity is larger."""
        tokens = max(capacity, STALE_TOKENS)
        if tokens not in self.stale:
            self.say(f"the earlier run, whose rows stay behind: {tokens} tokens")
            ids = self.tokeniser.encode(prompt_text(STALE))
            cache = Cache(self.llama, tokens)
            self.llama.forward(list(np.resize(ids, tokens)), cache)
            self.stale[tokens] = cache
        return self.stale[tokens]

    def run(self, text, phase, capacity):
        key = (text, phase, capacity)
        if key in self.runs:
            return self.runs[key]
        steps = 0 if phase == "prefill_last" else int(phase.removeprefix("decode")) + 1
        ids = self.tokeniser.encode(text)
        if not ids:
            raise SystemExit("the prompt is empty")
        if len(ids) + steps > capacity:
            raise SystemExit(
                f"the prompt has {len(ids)} tokens and {phase} needs {steps} more: "
                f"they do not fit a capacity of {capacity}"
            )
        cache = Cache(self.llama, capacity)
        if len(ids) + steps < capacity:
            old = self.stale_cache(capacity)
            cache.k[:], cache.v[:] = old.k[:, :, :capacity], old.v[:, :, :capacity]
        self.say(f"{len(ids)} tokens of prompt")
        logits, q = self.llama.forward(ids, cache)
        for _ in range(steps):
            token = int(logits.argmax())
            self.say(f"decodes {self.tokeniser.decode([token])!r}")
            logits, q = self.llama.forward([token], cache)
        self.runs[key] = Capture(cache, q, cache.used)
        return self.runs[key]

    def cut(self, text, prompt_id, phase, layer, layers, capacity, k_layout, v_layout, dtype, probs):
        """Metadata and tensors of a slice. q, k and v are rounded to the stored type first; out,
        probs and scores are computed in f64 from those and rounded to f32."""
        capture = self.run(text, phase, capacity)
        q = capture.q[layer].astype(dtype)
        k, v = (t[:layers].astype(dtype) for t in (capture.cache.k, capture.cache.v))
        n = capture.seq_len
        found = attention(q[None], k[layer, :, :n], v[layer, :, :n], self.llama.scale)
        out, weights, scores = (t[0].astype(np.float32) for t in found)
        one = slice(layer, layer + 1)
        held = lambda t, layout: arrange(t if "L" in layout else t[one], layout)
        tensors = {"q": q, "k": held(k, k_layout), "v": held(v, v_layout), "out": out}
        if probs:
            tensors |= {"probs": weights, "scores": scores}
        metadata = {
            "format": "kv-slice/1",
            "model": MODEL,
            "prompt_id": prompt_id,
            "phase": phase,
            "layer": layer,
            "pos_id": n - 1,
            "seq_len": n,
            "capacity": capacity,
            "num_heads": self.llama.heads,
            "num_kv_heads": self.llama.kv_heads,
            "head_dim": self.llama.head_dim,
            "scale": self.llama.scale,
            "k_layout": k_layout,
            "v_layout": v_layout,
        }
        return {key: str(value) for key, value in metadata.items()}, tensors


def arrange(cache, layout):
    """`[L, H, N, D]` with the axes in the layout's order; without L where it has none."""
    axes = layout if "L" in layout else "L" + layout
    held = np.ascontiguousarray(cache.transpose(["LHND".index(a) for a in axes]))
    return held if "L" in layout else held[0]


def unarrange(held, layout):
    """The inverse: `[L, H, N, D]`, with one layer where the layout has no L."""
    axes = layout if "L" in layout else "L" + layout
    held = held if "L" in layout else held[None]
    return held.transpose([axes.index(a) for a in "LHND"])


def prompt_text(prompt_id):
    """A prompt of prompts/. The newline that ends the file is not part of it."""
    path = HERE / "prompts" / f"{prompt_id}.txt"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: the prompt `{prompt_id}` cannot be run again")
    return path.read_bytes().decode().removesuffix("\n")


# The check.

U32 = 2.0**-24  # unit roundoff of f32
U64 = 2.0**-53
# As in src/oracle/bound.rs: `lambda` of Higham and Mary's probabilistic bound.
LAMBDA = 6.5
DRAWS = 3


class Shaken(Llama):
    """The model with every output of every linear layer pushed, by a random sign, as far as two f32
    runs can lie apart that differ in the order of their sums.

    One run errs by at most lambda sqrt(n) u |x| |W|^T: Higham and Mary (2019), "A new approach to
    probabilistic rounding error analysis"; n counts the terms and 16 roundings more, for what norm,
    SiLU, residual and the rounding of attention and RoPE add. Two independent runs: sqrt(2) of it."""

    def __init__(self, gguf, seed):
        super().__init__(gguf)
        self.random = np.random.default_rng(seed)

    def linear(self, x, name):
        w = self.w[name]
        reach = np.float32(np.sqrt(2) * LAMBDA * np.sqrt(w.shape[1] + 16) * U32)
        sign = self.random.integers(0, 2, (len(x), len(w))).astype(np.float32) * 2 - 1
        return x @ w.T + sign * reach * (np.abs(x) @ np.abs(w).T)


def recomputed(metadata, tensors):
    """out, probs and scores in f64 from the file's own q, k and v, and how far the file's may be
    from each: half an ulp of f32, and twice the f64 error of such a computation."""
    layer, n = int(metadata["layer"]), int(metadata["seq_len"])
    scale = float(metadata["scale"])
    attended = lambda t, layout: unarrange(t, layout)[layer if "L" in layout else 0, :, :n]
    k, v = (attended(tensors[t], metadata[f"{t}_layout"]).astype(np.float64) for t in ("k", "v"))
    q = tensors["q"].astype(np.float64)
    out, probs, scores = (t[0] for t in attention(q[None], k, v, scale))
    group = len(q) // len(k)
    k, v = (np.repeat(t, group, axis=0) for t in (k, v))
    # A dot product of d terms and a factor; e^s is off by e^(error of s, and of the largest s),
    # the sum and the division by n + 4 roundings more; the last product by n.
    off = (q.shape[1] + 2) * U64 * scale * np.einsum("hd,hnd->hn", abs(q), abs(k))
    weight = 2 * off.max(-1, keepdims=True) + (n + 8) * U64
    out_off = (weight + n * U64) * np.einsum("hn,hnd->hd", probs, abs(v))
    half_ulp = lambda x: np.spacing(np.abs(x).astype(np.float32)).astype(np.float64) / 2
    return {
        "out": (out, half_ulp(out) + 2 * out_off),
        "probs": (probs, half_ulp(probs) + 2 * weight * probs),
        "scores": (scores, half_ulp(scores) + 2 * off),
    }


def worst(got, want, limit):
    """The element that exceeds its limit by most, if one does: its index and the ratio."""
    error = np.abs(got.astype(np.float64) - want)
    # A limit of zero asks for equality; NaN never fits.
    ratio = np.where(error == 0, 0, error / np.maximum(limit, 1e-300))
    ratio = np.where(np.isnan(error), np.inf, ratio)
    at = np.unravel_index(ratio.argmax(), ratio.shape)
    return at, float(ratio[at])


class Check:
    """Holds files against what the program makes from their own metadata."""

    def __init__(self, gguf, llama, tokeniser, say):
        self.gguf, self.tokeniser, self.say = gguf, tokeniser, say
        self.maker = Maker(llama, tokeniser, say)
        self.shaken = None
        self.faults = 0

    def fault(self, text):
        self.faults += 1
        print(f"FAULT {text}")

    def file(self, path):
        metadata, tensors = read_slice(path)
        wanted = self.make(self.maker, metadata, tensors)
        for key in sorted(wanted[0].keys() | metadata.keys()):
            has, want = metadata.get(key), wanted[0].get(key)
            if has != want:
                self.fault(f"{path.name}: `{key}` is {has}, must be {want}")
        own = recomputed(metadata, tensors)
        notes = []
        for name in sorted(wanted[1].keys() | tensors.keys()):
            if name not in tensors or name not in wanted[1]:
                self.fault(f"{path.name}: `{name}` is {'in' if name in tensors else 'not in'} the file")
                continue
            has, want = tensors[name], wanted[1][name]
            if has.dtype != want.dtype or has.shape != want.shape:
                self.fault(
                    f"{path.name}: `{name}` is {has.dtype} {has.shape}, "
                    f"must be {want.dtype} {want.shape}"
                )
                continue
            same = has.tobytes() == want.tobytes()
            if name in own:
                # What follows from q, k and v is judged by the file's own: those may be rounded
                # otherwise than here, and are judged themselves.
                at, ratio = worst(has, *own[name])
                if ratio > 1:
                    self.element(path, name, at, has, *own[name], "f64 of the file's q, k, v")
                how = "equal" if same else f"off by {ratio:.2g} of f32's rounding of the file's own"
            else:
                how = "equal" if same else self.near(path, name, metadata, tensors, want)
            notes.append(f"{name} {how}")
        print(f"{path.stem}: {', '.join(notes)}")

    def make(self, maker, metadata, tensors):
        layers = 1 + int(metadata["layer"])
        for t in ("k", "v"):
            layout = metadata[f"{t}_layout"]
            if "L" in layout:
                layers = max(layers, tensors[t].shape[layout.index("L")])
        return maker.cut(
            text=prompt_text(metadata["prompt_id"]),
            prompt_id=metadata["prompt_id"],
            phase=metadata["phase"],
            layer=int(metadata["layer"]),
            layers=layers,
            capacity=int(metadata["capacity"]),
            k_layout=metadata["k_layout"],
            v_layout=metadata["v_layout"],
            dtype=tensors["q"].dtype,
            probs="probs" in tensors,
        )

    def near(self, path, name, metadata, tensors, want):
        """Bits differ: asks whether rounding explains it, and says how near the tensor came.

        How f32's rounding spreads through thirty layers has no useful closed bound, so it is
        sampled: the limit of an element is the root mean square of its row's moves over a few shaken
        runs, and a rounding to the stored type. A row is head_dim elements. The pushes being lambda
        deviations, so is that root mean square."""
        if self.shaken is None:
            self.say("bits differ from this machine's: running the model with shaken sums")
            self.shaken = [
                Maker(Shaken(self.gguf, seed), self.tokeniser, lambda _: None)
                for seed in range(DRAWS)
            ]
        has = tensors[name]
        rounding = np.spacing(np.abs(want)).astype(np.float64)
        layout = metadata.get(f"{name}_layout")
        # The rows are along D, wherever the layout has it.
        axis = layout.index("D") if layout else -1
        want = want.astype(np.float64)
        reach = np.zeros(want.shape)
        for maker in self.shaken:
            moved = self.make(maker, metadata, tensors)[1][name].astype(np.float64)
            reach += ((moved - want) ** 2).mean(axis, keepdims=True) / DRAWS
        limit = np.sqrt(reach) + rounding
        at, ratio = worst(has, want, limit)
        if ratio > 1:
            self.element(path, name, at, has, want, limit, "made here")
        equal = (has == want).mean()
        return f"{equal:.2%} equal, the rest off by at most {ratio:.2g} of the bound"

    def element(self, path, name, at, has, want, limit, what):
        where = ", ".join(str(int(i)) for i in at)
        self.fault(
            f"{path.name}: {name}[{where}] is {float(has[at]):.9e}, "
            f"must be {float(want[at]):.9e} within {float(limit[at]):.2e} ({what})"
        )


def layout(text):
    if sorted(text) not in (sorted("HND"), sorted("LHND")):
        raise argparse.ArgumentTypeError("must be the letters H, N, D in some order, L among them or not")
    return text


def phase(text):
    steps = text.removeprefix("decode")
    if text != "prefill_last" and not (text.startswith("decode") and steps.isascii() and steps.isdigit()):
        raise argparse.ArgumentTypeError("must be prefill_last, decode0, decode1, ...")
    return text


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", nargs="*", type=Path, metavar="FILE",
                      help="make these files' content again and compare (default: golden/slices)")
    what.add_argument("--prompt", help="the text; <|im_start|> and the like are control tokens")
    what.add_argument("--prompt-id", help="a prompt of golden/prompts, by its file's stem")
    what.add_argument("--prompt-file", type=Path, help="a file; the newline that ends it is left out")
    parser.add_argument("--layer", type=int, default=0, help="of q and out, from 0 (default 0)")
    parser.add_argument("--layers", type=int, metavar="N",
                        help="k and v hold the first N layers, in layouts with L (default: layer + 1)")
    parser.add_argument("--layout", type=layout, default="HND", help="of k and v (default HND)")
    parser.add_argument("--k-layout", type=layout, help="of k alone")
    parser.add_argument("--v-layout", type=layout, help="of v alone")
    parser.add_argument("--dtype", choices=DTYPES, default="f32", help="of q, k, v; out is f32")
    parser.add_argument("--capacity", type=int, default=256, help="rows of the cache (default 256)")
    parser.add_argument("--phase", type=phase, default="decode0",
                        help="prefill_last, or decodeN: the step after N decoded tokens (default decode0)")
    parser.add_argument("--probs", action="store_true", help="add probs and scores")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.check is None and args.output is None:
        parser.error("-o FILE: where to write")
    return parser, args


def main():
    parser, args = arguments()
    say = lambda text: print(text, file=sys.stderr, flush=True)
    gguf = Gguf(model_file())
    llama, tokeniser = Llama(gguf), Tokeniser(gguf.fields)
    if args.check is not None:
        check = Check(gguf, llama, tokeniser, say)
        files = args.check or sorted((HERE / "slices").glob("*.safetensors"))
        for path in files:
            check.file(path)
        print(f"{'FAIL' if check.faults else 'PASS'}: {len(files)} files, {check.faults} faults")
        return 1 if check.faults else 0
    k_layout, v_layout = args.k_layout or args.layout, args.v_layout or args.layout
    layers = args.layers or args.layer + 1
    if not 0 <= args.layer < layers <= llama.layers:
        parser.error(f"layer {args.layer} of the first {layers}: the model has {llama.layers}")
    if args.prompt is not None:
        text, prompt_id = args.prompt, args.output.stem
    elif args.prompt_id is not None:
        text, prompt_id = prompt_text(args.prompt_id), args.prompt_id
    else:
        text = args.prompt_file.read_bytes().decode().removesuffix("\n")
        prompt_id = args.prompt_file.stem
    metadata, tensors = Maker(llama, tokeniser, say).cut(
        text, prompt_id, args.phase, args.layer, layers, args.capacity,
        k_layout, v_layout, DTYPES[args.dtype], args.probs,
    )
    write_slice(args.output, metadata, tensors)
    say(f"{args.output}: {metadata['seq_len']} of {metadata['capacity']} rows, layer {args.layer}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Times the decode attention of today's libraries by the method of `attnbench bench`.

PyTorch (cuDNN, FlashAttention-2), FlashInfer (tensor cores, CUDA cores) and SGLang's Triton kernel,
each where it is installed; what is missing or fails is in the result with the reason. README.md
beside this file says what is measured and how.

Exit status: 0 done, 2 the request or the machine was at fault, 130 interrupted. What was found
before is kept.
"""

import argparse
import importlib.util
import json
import os
import shlex
import sys
from pathlib import Path

import machine
from libraries import KERNELS, load, one_line, say
from measure import WARM, Bench, ContextLost
from shapes import LEAST_BYTES, Fault, choose, read_shapes

LAYOUTS = ("NHD", "HND")
ASSUMED_L2 = 50 << 20  # of an H100: for --check, which asks no GPU


def write_json(path, result):
    """Whole or not at all: an interrupt while writing leaves the file of the shape before."""
    if path in (None, "-"):
        return
    try:
        partial = Path(f"{path}.partial")
        text = json.dumps(result, indent=1, allow_nan=False) + "\n"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise Fault(f"cannot write {path}: {error}") from error


def table(result, places, kernels):
    """Microseconds a call, a line for each shape and layout, and what is missing."""
    lines = [["shape", "layout", *kernels, "best", "GB/s"]]
    found = {(row["shape"], row["layout"], row["kernel"]): row for row in result["rows"]}
    for shape, layout in places:
        here = [found.get((shape, layout, kernel)) for kernel in kernels]
        cells = ["-"] * len(kernels)
        for i, row in enumerate(here):
            if row:
                cells[i] = f"{row['us']['median']:.2f}" + ("" if row["graph"] else "*")
        best = min(filter(None, here), key=lambda row: row["us"]["median"], default=None)
        last = [best["kernel"], f"{best['gbs']:.0f}"] if best else ["-", "-"]
        lines.append([shape, layout, *cells, *last])
    widths = [max(map(len, column)) for column in zip(*lines)]
    left = (0, 1, len(widths) - 2)
    text = []
    for line in lines:
        pad = [str.ljust if i in left else str.rjust for i in range(len(widths))]
        text.append("  ".join(p(c, w) for p, c, w in zip(pad, line, widths)).rstrip())
    if not all(row["graph"] for row in result["rows"]):
        text.append("* plain launches: no graph could be captured")
    reasons = {}
    for entry in result["missing"]:
        where = reasons.setdefault((entry["kernel"], entry["why"]), [])
        where.append(f"{entry['shape']} {entry['layout']}")
    for (kernel, why), where in reasons.items():
        more = f" and {len(where) - 3} more" if len(where) > 3 else ""
        text.append(f"missing: {kernel} on {', '.join(where[:3])}{more}: {why}")
    return "\n".join(text)


def plan(options, shapes):
    """What a run would do; the size of the L2 cache is assumed."""
    print(f"kernels: {', '.join(options.only)}")
    for module in ("torch", "triton", "flashinfer", "sglang"):
        print(f"{module}: {'' if importlib.util.find_spec(module) else 'not '}installed")
    print(f"layouts: {', '.join(options.layout)}")
    print(f"{options.rounds} rounds of {options.replays} replays, seed {options.seed}")
    print(f"sets for an L2 cache of {ASSUMED_L2 >> 20} MiB:")
    runs = (WARM + options.replays) * options.rounds * len(options.only) * len(options.layout)
    seconds = 0.0
    for s in shapes:
        sets = s.sets(ASSUMED_L2)
        calls = sets * s.repeats(sets)
        seconds += s.kv_bytes / 3e12 * calls * runs
        window = f", window {s.window_len}" if s.window_len else ""
        print(
            f"  {s.name}: {s.batch} x {s.num_heads}/{s.num_kv_heads}/{s.head_dim} {s.dtype}, "
            f"{s.seq_len} keys{window}: KV {s.kv_bytes / 1e6:.1f} MB, {sets} sets, {calls} calls"
        )
    print(f"replays alone, at 3 TB/s: {seconds:.0f} s")


def parse(arguments):
    def words(text):
        return list(dict.fromkeys(word for word in text.split(",") if word))

    def positive(text):
        if int(text) < 1:
            raise ValueError
        return int(text)

    parser = argparse.ArgumentParser(prog="peers.py", description=__doc__.split("\n\n")[0])
    file = Path(__file__).resolve().parent.parent / "shapes.json"
    add = parser.add_argument
    add("--shapes", type=words, default=["peers"], metavar="NAMES", help="shapes, sets (peers)")
    add("--shapes-file", default=file, metavar="FILE", help="attnbench-shapes/1 (../shapes.json)")
    add("--layout", type=words, default=LAYOUTS, metavar="NAMES", help="NHD,HND (both)")
    add("--only", type=words, default=KERNELS, metavar="NAMES", help=f"{','.join(KERNELS)} (all)")
    add("--rounds", type=positive, default=5, metavar="N", help="each with new buffers (5)")
    add("--replays", type=positive, default=30, metavar="N", help="timed in a round (30)")
    add("--seed", type=int, default=1, metavar="N", help="of the random inputs (1)")
    add("--json", metavar="FILE|-", help="the results, written after every shape")
    add("--sglang", metavar="FILE", help="SGLang's decode_attention.py, without the package")
    add("--check", action="store_true", help="check the request, print the plan; needs no GPU")
    options = parser.parse_args(arguments)
    for option, known in (("layout", LAYOUTS), ("only", KERNELS)):
        given = getattr(options, option)
        for word in given or [""]:
            if word not in known:
                raise Fault(f"--{option}: {word!r} is none of {', '.join(known)}")
        setattr(options, option, [word for word in known if word in given])
    if not options.shapes:
        raise Fault("--shapes names no shape")
    if not 0 <= options.seed < 1 << 63:
        raise Fault(f"--seed: {options.seed} is not in 0..2^63")
    if options.sglang and not Path(options.sglang).is_file():
        raise Fault(f"--sglang: no file {options.sglang}")
    if options.json not in (None, "-") and not Path(options.json).absolute().parent.is_dir():
        raise Fault(f"--json: no folder for {options.json}")
    return options


def import_torch():
    try:
        import torch
    except ImportError as error:
        raise Fault(f"no PyTorch ({one_line(error)}); --check needs none") from error
    if not torch.cuda.is_available() or torch.version.cuda is None:
        raise Fault("PyTorch finds no CUDA GPU here; --check needs none")
    return torch


def run(options, shapes, arguments):
    torch = import_torch()
    device, smi = machine.describe(torch)
    kernels, absent, versions = load(torch, options.only, shapes, options.sglang)
    result = {
        "format": "attnbench-bench/1",
        "program": "peers.py",
        "command": shlex.join(["python3", "benches/peers/peers.py", *arguments]),
        "seed": options.seed,
        "device": device,
        "versions": {**machine.torch_versions(torch), **versions},
        "method": {
            "rounds": options.rounds,
            "replays": options.replays,
            "warm": WARM,
            "least_bytes": LEAST_BYTES,
        },
        "rows": [],
        "missing": [],
        "telemetry": [],
    }
    numbers = (device["l2_bytes"], options.rounds, options.replays, options.seed)
    bench = Bench(torch, kernels, absent, *numbers)

    def note(when):
        reading = smi.telemetry(when)
        result["telemetry"] += [reading] if reading else []

    status, end = 0, None
    try:
        with torch.no_grad():
            for shape in shapes:
                note(f"before {shape.name}")
                for layout in options.layout:
                    rows, missing = bench.measure(shape, layout)
                    result["rows"] += rows
                    result["missing"] += missing
                note(f"after {shape.name}")
                write_json(options.json, result)
    except KeyboardInterrupt:
        status, end = 130, "interrupted"
    except ContextLost as lost:
        status, end = 2, str(lost)
    places = [(shape.name, layout) for shape in shapes for layout in options.layout]
    if end:
        say(end)
        known = {(e["shape"], e["layout"], e["kernel"]) for e in result["rows"] + result["missing"]}
        result["missing"] += [
            {"kernel": kernel, "shape": shape, "layout": layout, "why": end}
            for shape, layout in places
            for kernel in options.only
            if (shape, layout, kernel) not in known
        ]
        write_json(options.json, result)
    text = table(result, places, options.only)
    if options.json == "-":
        say(text)
        text = json.dumps(result, indent=1, allow_nan=False)
    print(text)
    return status


def main(arguments):
    try:
        options = parse(arguments)
        shapes = choose(options.shapes, *read_shapes(options.shapes_file))
        if options.check:
            plan(options, shapes)
            return 0
        return run(options, shapes, arguments)
    except Fault as fault:
        say(f"peers.py: {fault}")
        return 2
    except KeyboardInterrupt:
        say("peers.py: interrupted before anything was measured")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

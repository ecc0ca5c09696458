#!/usr/bin/env python3
"""All that a GPU can be asked for, step by step, on a machine that has one and no Rust.

    python3 props/gpu/on_a_gpu.py PROGRAM OUT_FOLDER [--api cuda] [--cases 10000] [--steps sweep,rate,…]
                                  [--slices FOLDER…] [--faults FOLDER]

PROGRAM is the built `attnbench`, with this repository around this file. Each step has a time limit of
its own and leaves its result in OUT_FOLDER: `summary.json` says of each what was run, how it ended and
what it found. Exits with 0 if every step found what it should, else 1.

  devices     what is there
  sweep       every built-in kernel
  rate        decode_online over many cases: how many a second
  hip         HIP's path on CUDA (props/gpu/hip_on_cuda, built here; needs g++ and the CUDA toolkit)
  same        the verdicts of the same seed on the CPU at the GPU's wave size
  slices      captured slices under the kernels of decode attention
  faults      planted faults: folders of kernels, as `cargo test --test props faults` leaves them in
              target/tmp/faults; those that stay silent are listed
  survive     kernels that fault, never end and do not compile, each before a sound one
  peers       others' kernels, by benches/peers/peers.py (with --sglang FILE SGLang's, too)
  bench       decode_fast on the named shapes in both layouts, beside the peers where they were measured; the
              same again, which must be the same, and slowed on purpose, which must be called slower
  sanitizer   compute-sanitizer's four tools over a small sweep, and over planted faults: they are awake

`--api cpu` tries the script itself where there is no GPU.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("devices", "sweep", "rate", "hip", "same", "slices", "faults", "survive", "peers", "bench",
         "sanitizer")
DECODE = ("decode_naive", "decode_online", "decode_split")

# Faults that a GPU need not show, and why; the CPU device and its checker name them all.
UNSHOWN = {
    "no_barrier_after_the_query_is_loaded": "its waves are launched together and load in step",
    "no_barrier_after_the_weights_are_written": "its waves write and read in step",
    "the_wave_has_32_lanes_in_the_slots": "it is right where a wave has 32 lanes",
}

# What keeps each tool of compute-sanitizer honest: a fault that it must find. None for initcheck: the whole
# arena is written before each launch, so it has nothing to find there, and what a kernel reads without
# having written it is poison, which the sweep itself shows.
AWAKE = {
    "memcheck": "crashes",
    "racecheck": "no_barrier_after_the_weights_are_written",
    "synccheck": "a_barrier_that_some_threads_do_not_reach",
}


class Bench:
    def __init__(self, args):
        # As given: paths stand in the results.
        self.program, self.out = args.program, Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.args, self.ran = args, []
        # Of steps that were made in another call, too.
        summary = self.out / "summary.json"
        self.results = json.loads(summary.read_text()) if summary.exists() else {}
        self.device = args.api
        self.saved = Path(tempfile.gettempdir()) / "attnbench-failures"

    def run(self, *arguments, limit=120, env=None, prefix=()):
        """Runs the program; its status (124 for one that was stopped), output and seconds."""
        command = [*prefix, self.program, *map(str, arguments)]
        began = time.monotonic()
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", timeout=limit, env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
            )
            status, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired as stopped:
            status = 124
            output = (stopped.stdout or b"").decode(errors="replace")
        return status, output, time.monotonic() - began

    def sweep(self, name, *arguments, device=None, limit=240, env=None, prefix=()):
        """A sweep whose document goes to a file; the status and the document."""
        file = self.out / f"{name}.json"
        file.unlink(missing_ok=True)
        device = device or self.device
        status, output, seconds = self.run(
            "sweep", *arguments, "--device", device, "--json", file, "--save", self.saved,
            limit=limit, env=env, prefix=prefix,
        )
        (self.out / f"{name}.txt").write_text(output)
        document = json.loads(file.read_text()) if file.exists() else {"kernels": []}
        return status, document, seconds

    def note(self, step, ok, **more):
        self.results[step] = {"ok": ok, **more}
        self.ran.append(ok)
        (self.out / "summary.json").write_text(json.dumps(self.results, indent=1) + "\n")
        shown = {key: value for key, value in more.items() if not isinstance(value, (list, dict))}
        print(f"{step}: {'ok' if ok else 'NOT OK'} {shown}", flush=True)

    # The steps

    def devices(self):
        status, output, _ = self.run("devices")
        self.note("devices", status == 0 and f"{self.device}" in output, says=output.strip())

    def do_sweep(self):
        status, document, seconds = self.sweep(
            "sweep", "--cases", self.args.cases, "--seed", 20261126, limit=300
        )
        kernels = document["kernels"]
        self.note(
            "sweep", status == 0 and len(kernels) >= 12, status=status, seconds=round(seconds, 1),
            device=document.get("device"), kernels=len(kernels),
            cases=sum(kernel["cases"] for kernel in kernels),
            failing=[kernel["name"] for kernel in kernels if kernel["verdict"] != "pass"],
        )

    def rate(self):
        cases = 10 * self.args.cases
        status, document, _ = self.sweep("rate", "decode_online", "--cases", cases, "--seed", 5)
        kernel = (document["kernels"] or [{}])[0]
        rate = kernel.get("cases", 0) / max(kernel.get("seconds", 1), 1e-9)
        self.note(
            "rate", status == 0, status=status, cases_a_second=round(rate),
            busy_seconds=kernel.get("busy_seconds"), seconds=kernel.get("seconds"),
        )

    def hip(self):
        cuda = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "libamdhip64.so"
            built = subprocess.run(
                ["g++", "-O2", "-shared", "-fPIC", f"-I{cuda}/include",
                 ROOT / "props/gpu/hip_on_cuda/hip_on_cuda.cpp", "-o", library,
                 f"-L{cuda}/lib64", f"-L{cuda}/lib64/stubs", "-lcuda", "-lnvrtc",
                 f"-Wl,-rpath,{cuda}/lib64"],
                capture_output=True, text=True,
            )
            if built.returncode:
                return self.note("hip", False, why=built.stderr[-500:])
            (Path(folder) / "libhiprtc.so").symlink_to("libamdhip64.so")
            headers = ROOT / "src/device/gpu/include/cuda"
            include = f"{headers}:{cuda}/include:{cuda}/include/cccl"
            env = {"HIP_PATH": folder, "ROCM_PATH": "", "ATTNBENCH_CUDA_INCLUDE": include}
            status, document, _ = self.sweep(
                "hip_on_cuda", "--cases", 2000, device="hip", env=env
            )
        kernels = document["kernels"]
        self.note(
            "hip", status == 0 and len(kernels) >= 12, status=status, device=document.get("device"),
            cases=sum(kernel["cases"] for kernel in kernels),
            failing=[kernel["name"] for kernel in kernels if kernel["verdict"] != "pass"],
        )

    def same(self):
        of = ["--cases", 500, "--seed", 3]
        wave = "32" if self.args.api == "cuda" else "64"
        _, cpu, _ = self.sweep("same_cpu", *of, "--wave", wave, device="cpu")
        _, gpu, _ = self.sweep("same_gpu", *of)
        keys = ("name", "verdict", "cases", "passed", "failed", "skipped", "vacuous", "drawn")
        different = [
            a["name"] for a, b in zip(cpu["kernels"], gpu["kernels"])
            if any(a[key] != b[key] for key in keys)
        ]
        ok = not different and len(cpu["kernels"]) == len(gpu["kernels"]) >= 12
        self.note("same", ok, different=different, kernels=len(gpu["kernels"]))

    def slices(self):
        files = [file for folder in [ROOT / "golden/slices", *map(Path, self.args.slices)]
                 for file in sorted(folder.resolve().glob("*.safetensors"))]
        jobs = [(kernel, file) for file in files for kernel in DECODE]

        def one(job):
            kernel, file = job
            status, output, _ = self.run(
                "replay", file, "--kernel", kernel, "--device", self.device
            )
            return {"kernel": kernel, "slice": file.name, "status": status,
                    "says": output.strip().splitlines()[-1:]}

        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(one, jobs))
        wrong = [entry for entry in found if entry["status"] != 0]
        self.note("slices", not wrong and bool(found), replays=len(found), wrong=wrong)

    def faults(self):
        if not self.args.faults:
            return self.note("faults", False, why="--faults names no folder")
        folders = sorted(p for p in Path(self.args.faults).resolve().iterdir() if p.is_dir())
        listed = {}
        for line in (ROOT / "plots/results/2026-11-26-cpu/faults.md").read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) >= 6:
                listed[cells[0].replace(" ", "_")] = cells[1]
        jobs = [(p, listed[p.name]) for p in folders if p.name in listed]

        def one(job):
            folder, kernel = job
            file = self.out / f"fault-{folder.name}.json"
            status, _, _ = self.run(
                "sweep", folder / f"{kernel}.toml", "--device", self.device, "--cases", 300,
                "--fail-fast", "-j", 2, "--time-limit", "2s", "--json", file, "--save", self.saved,
                limit=90,
            )
            found = json.loads(file.read_text())["kernels"][0] if file.exists() else {}
            file.unlink(missing_ok=True)
            first = (found.get("failures") or [{}])[0]
            return {"fault": folder.name, "kernel": kernel, "status": status,
                    "property": first.get("property"), "cases": found.get("cases")}

        with ThreadPoolExecutor(14) as pool:
            found = list(pool.map(one, jobs))
        silent = [entry["fault"] for entry in found if entry["status"] != 1]
        unexpected = [name for name in silent if name not in UNSHOWN]
        (self.out / "faults.json").write_text(json.dumps(found, indent=1) + "\n")
        self.note("faults", bool(found) and not unexpected, planted=len(found),
                  caught=len(found) - len(silent),
                  silent={name: UNSHOWN.get(name) for name in silent}, unexpected=unexpected)

    def broken(self):
        """A folder with kernels that fault, never end and do not compile."""
        folder = Path(tempfile.gettempdir()) / "attnbench-broken"
        shutil.copytree(ROOT / "kernels", folder, dirs_exist_ok=True)
        source = (folder / "decode_online.hip").read_text()
        manifest = (folder / "decode_online.toml").read_text()
        start = "    out += b * out_stride_s + h * out_stride_h;\n"
        edits = {
            "crashes": start + "    if (b == 3) out += 1ll << 40;\n",
            "never_ends": "    while (b == 3 && seq_lens[b] >= 0) __syncthreads();\n" + start,
            "does_not_compile": start + "    nonsense;\n",
        }
        for name, edit in edits.items():
            assert source.count(start) == 1
            (folder / f"{name}.hip").write_text(source.replace(start, edit))
            own = manifest.replace('"decode_online"', f'"{name}"', 1)
            own = own.replace("decode_online.hip", f"{name}.hip")
            (folder / f"{name}.toml").write_text(own)
        return folder

    def survive(self):
        folder, found = self.broken(), {}
        for name, wanted in [("crashes", "crash"), ("never_ends", "timeout"),
                             ("does_not_compile", None)]:
            status, document, seconds = self.sweep(
                f"survive_{name}", folder / f"{name}.toml", "scores", "--cases", 100,
                "--time-limit", "2s", limit=150,
            )
            by_name = {kernel["name"]: kernel for kernel in document["kernels"]}
            own, other = by_name.get(name, {}), by_name.get("scores", {})
            first = (own.get("failures") or [{}])[0].get("property")
            ok = other.get("verdict") == "pass" and first == wanted
            found[name] = {"ok": ok, "status": status, "seconds": round(seconds, 1),
                           "property": first, "failed": own.get("failed"),
                           "passed": own.get("passed"), "other": other.get("verdict")}
        self.note("survive", all(entry["ok"] for entry in found.values()), found=found)

    def peers(self):
        script = ROOT / "benches/peers/peers.py"
        file = self.out / "peers.json"
        command = [sys.executable, script, "--shapes", "peers,own", "--json", file]
        if self.args.sglang:
            command += ["--sglang", self.args.sglang]
        done = subprocess.run(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", timeout=500, cwd=ROOT,
        )
        (self.out / "peers.txt").write_text(done.stdout)
        document = json.loads(file.read_text()) if file.exists() else {"rows": []}
        self.note("peers", done.returncode == 0 and bool(document["rows"]), status=done.returncode,
                  rows=len(document["rows"]),
                  kernels=sorted({row["kernel"] for row in document["rows"]}),
                  missing=len(document.get("missing", [])))

    def slowed(self):
        """decode_fast with a wait behind its loop, of 3.3 % of the time that the loop took."""
        folder = Path(tempfile.gettempdir()) / "attnbench-slowed"
        shutil.copytree(ROOT / "kernels", folder, dirs_exist_ok=True)
        source = (folder / "decode_fast.hip").read_text()
        begin = "    extern __shared__ float shared[];\n"
        merge = "    const shared_rows<HEAD_DIM> rows(shared, group, parts);\n"
        assert source.count(begin) == source.count(merge) == 1
        source = source.replace(begin, begin + "    const long long begun = clock64();\n")
        source = source.replace(merge, "    const long long now = clock64(), wait = (now - begun) * 33 / 1000;"
                                "\n    while (clock64() - now < wait) {}\n" + merge)
        (folder / "decode_fast.hip").write_text(source)
        return folder / "decode_fast.toml"

    def bench(self):
        def run(name, kernel, *arguments):
            file = self.out / f"{name}.json"
            file.unlink(missing_ok=True)
            status, output, _ = self.run(
                "bench", kernel, "--device", self.device, "--json", file, *arguments, limit=300,
            )
            (self.out / f"{name}.txt").write_text(output)
            return status, json.loads(file.read_text()) if file.exists() else {"rows": []}

        all_shapes = ("--shapes", "peers,own", "--layout", "NHD,HND")
        peers = self.out / "peers.json"
        beside = ("--with", peers) if peers.exists() else ()
        status, first = run("bench", "decode_fast", *all_shapes, *beside)
        then = ("--compare", self.out / "bench.json")
        again_status, again = run("bench-again", "decode_fast", *all_shapes, *then)
        # Shapes whose blocks are all under way at once, and mostly in the loop: there it slows the whole.
        loops = "llama8b_b8_8k,llama8b_b64_4k,llama8b_b1_128k,mha_b8_4k,gqa16_b16_8k,own_b6_12k"
        slow_status, slow = run(
            "bench-slowed", self.slowed(), "--shapes", loops, "--layout", "NHD,HND", *then
        )
        for name in ("decode_vector", "decode_split", "decode_online"):
            run(f"bench-{name}", Path(os.path.relpath(ROOT)) / f"kernels/{name}.toml", "--shapes", "llama8b_b8_8k,llama8b_b1_512,mha_b8_4k", *beside)
        said = [change["change"] for change in again.get("changes", [])]
        slower = [change["change"] for change in slow.get("changes", [])]
        ratios = [entry["ratio"] for entry in first.get("versus", [])]
        large = [row for row in first["rows"] if row.get("us") and row["kv_bytes"] > 100e6]
        ok = (status == 0 and again_status == 0 and slow_status == 1 and bool(first["rows"])
              and set(said) == {"same"} and set(slower) == {"slower"})
        self.note(
            "bench", ok, rows=len(first["rows"]), same=said.count("same"), of=len(said),
            slower=slower.count("slower"), of_slowed=len(slower),
            least_ratio_to_peers=min(ratios, default=None),
            least_share_of_reading_alone=min((row["of_read"] for row in large), default=None),
            ceiling=(first.get("ceiling") or {}).get("gbs"),
        )

    def sanitizer(self):
        tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        _, known, _ = self.run("kernels")
        kernels = re.findall(r"^(\w+)  stage ", known, re.MULTILINE)
        all_at_once = [(name, "all", ()) for name in ("memcheck", "initcheck", "synccheck")]
        # Hundreds of times as slow as without: each kernel by itself.
        each = [("racecheck", kernel, (kernel,)) for kernel in kernels]
        awake = []
        for name, fault in AWAKE.items():
            folder = self.broken() if name == "memcheck" else Path(self.args.faults or "") / fault
            kernel = fault if name == "memcheck" else "decode_online"
            awake.append((name, fault, (folder / f"{kernel}.toml",)))

        def one(job):
            name, of, what = job
            planted = job in awake
            cases = 120 if of == "all" else 8 if planted else self.args.sanitized
            status, document, seconds = self.sweep(
                f"sanitizer_{name}_{of}", *what, "--cases", cases, "-j", 2,
                "--time-limit", "5s" if planted else "120s", limit=180,
                prefix=[tool, "--tool", name, "--target-processes", "all", "--print-limit", "20"],
            )
            output = (self.out / f"sanitizer_{name}_{of}.txt").read_text()
            errors = sum(map(int, re.findall(r"ERROR SUMMARY: (\d+) error", output)))
            hazards = sum(map(int, re.findall(r"RACECHECK SUMMARY: (\d+) hazard", output)))
            judged, errors = document["kernels"], errors + hazards
            if not planted:
                for ending in ("json", "txt"):
                    (self.out / f"sanitizer_{name}_{of}.{ending}").unlink(missing_ok=True)
            ran = "SUMMARY:" in output
            if planted:
                ok = ran and errors > 0
            else:
                all_there = len(judged) == (len(kernels) if of == "all" else 1)
                whole = all(kernel["cases"] == cases and not kernel["failed"] for kernel in judged)
                ok = ran and errors == 0 and all_there and whole
            return {"tool": name, "of": of, "planted": planted, "ok": ok, "status": status,
                    "errors": errors, "cases": sum(kernel["cases"] for kernel in judged),
                    "seconds": round(seconds, 1)}

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(one, awake + all_at_once + each))
        self.note("sanitizer", all(entry["ok"] for entry in found),
                  clean=sum(entry["ok"] for entry in found if not entry["planted"]),
                  awake=sum(entry["ok"] for entry in found if entry["planted"]), found=found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("out")
    parser.add_argument("--api", default="cuda", choices=("cuda", "hip", "cpu"))
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--sanitized", type=int, default=24)
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--slices", nargs="*", default=[])
    parser.add_argument("--faults")
    parser.add_argument("--sglang")
    args = parser.parse_args()
    bench = Bench(args)
    for step in args.steps.split(","):
        began = time.monotonic()
        try:
            getattr(bench, "do_sweep" if step == "sweep" else step)()
        except Exception as error:  # a step that broke must not end the others
            bench.note(step, False, why=f"{type(error).__name__}: {error}")
        print(f"  {time.monotonic() - began:.1f} s", flush=True)
    sys.exit(0 if all(bench.ran) else 1)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Runs the planted faults of this suite and their mended twins under NVIDIA's compute-sanitizer.

    python3 props/sanitize/compare/compare.py WORK_FOLDER OUT.json [--jobs 8] [--arch native]

Needs an NVIDIA GPU, nvcc and compute-sanitizer, and nothing but Python's own library. WORK_FOLDER
gets the program and what every run printed; OUT.json is written anew every second or so, so that it
holds what there is if the time runs out. A Markdown table is printed at the end.

Exits with 0 if everything ran, 1 if something did not, 2 if a tool is missing or does not work.
"""

import argparse
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLASSES = ("memory", "race", "init", "barrier", "arith")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
WAVE = 32

# What each tool is run with besides its name. Buffers of cudaMalloc lie back to back: with padding
# memcheck sees what is next to one, as far as the guards in mod.rs reach.
COMMON = ["--show-backtrace", "device", "--print-limit", "1000"]
OPTIONS = {
    "memcheck": ["--padding", "4096"],
    "racecheck": ["--racecheck-report", "all"],
    "initcheck": [],
    "synccheck": [],
}
# Later versions of initcheck look at shared memory, too, if asked to.
SHARED_INIT = ("--initcheck-address-space", ["--initcheck-address-space", "all"])


# The suite


class Planted:
    """A kernel of the suite, as its `//@` line has it (suite.rs has the same)."""

    def __init__(self, file, line):
        self.file, self.cls = file.name, file.stem
        self.name, *words = line.split()
        keys = dict(word.split("=", 1) for word in words)
        number = {key: keys.get(key, "0") for key in ("grid", "block", "shared", "n")}
        self.shape = [number[key] for key in ("grid", "block", "shared", "n")]
        self.wants = keys["wants"]
        self.threads = keys.get("threads", "")
        self.block = int(keys["blocks"]) if "blocks" in keys else None
        self.wave = int(keys["waves"]) if "waves" in keys else None
        self.endless = "endless" in keys
        self.must = keys.get("must")
        self.marked = "line" not in keys
        self.lines = set()

    def arguments(self, variant):
        return [self.name, variant, *self.shape, *([self.must] if self.must else [])]

    def not_applicable(self):
        """Why the fault is none here; None if it is one."""
        if self.wave not in (None, WAVE):
            return f"a fault with waves of {self.wave} only"
        return None

    def may_be(self, thread):
        for part in filter(None, self.threads.split(",")):
            first, _, last = part.partition("..")
            if term(first) <= thread <= term(last or first):
                return True
        return False


def term(text):
    """A thread number, in which W is the wave size: 7, W, W-1, W/2, 3*W."""
    match = re.fullmatch(r"(?:(\d+)|(?:(\d+)\*?)?W(?:([-+*/])(\d+))?)", text.strip())
    if not match:
        raise ValueError(f"not a thread: {text}")
    plain, times, operation, operand = match.groups()
    if plain:
        return int(plain)
    value, x = int(times or 1) * WAVE, int(operand or 0)
    operations = {None: value, "+": value + x, "-": value - x, "*": value * x}
    return value // x if operation == "/" else operations[operation]


def read_suite(folder):
    kernels = []
    for cls in CLASSES:
        file = folder / f"{cls}.hip"
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if line.startswith("//@ "):
                kernels.append(Planted(file, line[4:]))
            elif line.rstrip().endswith("//!"):
                kernels[-1].lines.add(number)
    return kernels


# What the tools print


# Lines that start as a record does and are none: what the tool says of itself and of the program.
NO_RECORD = re.compile(
    r"COMPUTE-SANITIZER|(LEAK|RACECHECK|ERROR) SUMMARY|Target application|Target app|No kernel|"
    r"Process ID|Tool:|Checking |Generating |Detected possible deadlock|"
    r"Error: (?!Race reported|Potential|\()"
)
# And lines that do not, where they are not indented.
CONTINUED = re.compile(
    r"(at|and|by|in) |Address |(Read|Write) Thread|Current Value|(Device|Host) Frame|Saved host"
)
RACES = re.compile(
    r"RACECHECK SUMMARY: (\d+) hazards?(?: displayed)?(?: \((\d+) errors?, (\d+) warnings?\))?"
)
COUNTS = re.compile(r"ERROR SUMMARY: (\d+) errors?\s*$", re.M)
LEVEL = re.compile(r"(ERROR|Error|FATAL|Fatal|WARNING|WARN|Warning|INFO|Info)\s*:\s*")
# A tool that could not do its work says so in a record.
INTERNAL = re.compile(r"Internal (Sanitizer )?error|Unknown record|Error in printing", re.I)
API = re.compile(r"Program hit ")
PLACE = re.compile(r"([\w.-]+\.(?:hip|cu|h|hpp|cuh)):(\d+)")
THREAD = re.compile(r"[Tt]hread \((\d+), ?\d+, ?\d+\)")
BLOCK = re.compile(r"in block \((\d+), ?\d+, ?\d+\)")
# What the program prints itself of a call of CUDA's that failed.
PROGRAM = re.compile(r"^CUDA error: ([^:]+): .*", re.M)


class Record:
    """One thing that a tool reported."""

    def __init__(self, head):
        match = LEVEL.match(head)
        word = match.group(1).lower() if match else "error"
        self.level = {"warn": "warning", "fatal": "error"}.get(word, word)
        self.internal = bool(INTERNAL.search(head))
        self.lines = [head]

    @property
    def text(self):
        return "\n".join(self.lines)

    def places(self):
        return {(file, int(line)) for file, line in PLACE.findall(self.text)}

    def threads(self):
        return [int(x) for x in THREAD.findall(self.text)]

    def blocks(self):
        return [int(x) for x in BLOCK.findall(self.text)]


class Report:
    """What a tool printed of one run. Only errors count as a fault found: racecheck's warnings and
    what it reports for information are counted apart."""

    def __init__(self, text, timed_out=False):
        self.records, current = [], None
        for line in text.splitlines():
            match = re.match(r"=========( *)(.*)", line)
            if not match:
                continue
            rest = match.group(2).rstrip()
            goes_on = len(match.group(1)) > 1 or CONTINUED.match(rest)
            if rest and not goes_on:
                current = None if NO_RECORD.match(rest) else Record(rest)
                if current:
                    self.records.append(current)
            elif rest and current:
                current.lines.append(rest)
            else:
                current = None
        internal = sum(record.internal for record in self.records)
        self.records = [record for record in self.records if not record.internal]
        by_level = {"error": [], "warning": [], "info": []}
        for record in self.records:
            by_level[record.level].append(record)
        self.error_records = by_level["error"]
        self.errors = len(self.error_records)
        self.warnings, self.infos = len(by_level["warning"]), len(by_level["info"])

        # The tools' own counts, which go on where printing ends. Of a program that was stopped they
        # may count that, too.
        races, counts = RACES.findall(text), COUNTS.findall(text)
        self.ended = bool(races or counts)
        if self.ended and not timed_out:
            counted = sum(map(int, counts)) + sum(int(e or n) for n, e, _ in races)
            self.errors = max(0, counted - internal)
            self.warnings = sum(int(w or 0) for _, _, w in races) if races else self.warnings
        self.works = self.ended and internal == 0
        # No record says what is amiss; at most a call of CUDA's failed.
        self.unexplained = self.errors > 0 and all(
            API.match(record.lines[0]) for record in self.error_records
        )

    def state(self, timed_out):
        if self.errors > 0:
            return "found"
        if timed_out:
            return "hangs"
        return "silent" if self.works else "failed"


def right_line(planted, report):
    """Whether the report names a marked line. Where no line can be named, none is asked for."""
    if not planted.marked:
        return True
    marked = {(planted.file, line) for line in planted.lines}
    return any(record.places() & marked for record in report.error_records)


def right_thread(planted, report):
    """Whether a record names threads, only such as may be named, and the block that must be."""
    for record in report.error_records:
        threads, blocks = record.threads(), record.blocks()
        in_block = planted.block is None or planted.block in blocks
        if threads and in_block and all(map(planted.may_be, threads)):
            return True
    return False


# Running


def find(name):
    """A tool of the CUDA toolkit."""
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    parts = ["bin", "compute-sanitizer"]
    folders = [str(Path(root) / part) for root in filter(None, roots) for part in parts]
    path = os.pathsep.join([os.environ.get("PATH", ""), *folders])
    found = shutil.which(name, path=path)
    if found is None:
        print(f"compare.py: {name} is missing: it is neither in PATH nor in {', '.join(folders)}")
        sys.exit(2)
    return found


def output(command, timeout=60):
    """What a command prints, and its exit status; None for one that does not run."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", timeout=timeout, stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), None
    return done.stdout, done.returncode


def descendants(pid):
    """Processes that a process has started, and theirs."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue
            parent = stat.rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(entry.name))
    found, stack = [], [pid]
    while stack:
        for child in children.get(stack.pop(), []):
            found.append(child)
            stack.append(child)
    return found


def kill(pid, group=False):
    try:
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


class Run:
    """One run of a tool: what the program and the tool printed, and what follows from it."""

    def __init__(self, planted, text, timed_out, seconds):
        self.text, self.timed_out, self.seconds = text, timed_out, seconds
        report = self.report = Report(text, timed_out)
        error = PROGRAM.search(text)
        self.program = error.group(0) if error else None
        stage = error.group(1) if error else "end"
        came_back = error is not None or re.search(r"^done$", text, re.M)
        self.state = report.state(timed_out)
        explained = self.state == "found" and not report.unexplained
        # A kernel that a tool has stopped may fail the launch; else nothing was launched.
        launched = stage in ("kernel", "out", "cudaFree", "end", explained and "launch")
        if not launched or (self.state == "silent" and not came_back):
            self.state = "failed"
        found = self.state == "found"
        self.right_line = found and right_line(planted, report)
        self.right_thread = found and right_thread(planted, report)
        self.details = self.of_interest()

    def of_interest(self):
        """What the state does not say."""
        report = self.report
        known = {
            "errors": report.errors,
            "warnings": report.warnings,
            "infos": report.infos,
            "unexplained": report.unexplained,
            "timed_out": self.timed_out,
            "program": self.program,
        }
        details = {key: value for key, value in known.items() if value}
        records = report.error_records or report.records
        if records:
            details["first"] = records[0].lines[:4]
        places = sorted({place for r in report.error_records for place in r.places()})
        if places:
            details["places"] = [f"{file}:{line}" for file, line in places]
        details["seconds"] = round(self.seconds, 2)
        return details


class Runner:
    def __init__(self, sanitizer, program, folder, options, jobs):
        self.sanitizer, self.program, self.options = sanitizer, program, options
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        # Every run at a time has ports of its own, as the tool and the program talk through one.
        self.slots = queue.Queue()
        for slot in range(max(jobs, 1)):
            self.slots.put(slot)

    def command(self, tool, arguments, slot, options=None):
        options = self.options[tool] if options is None else options
        ports = ["--port", str(49152 + 16 * slot)]
        return [self.sanitizer, "--tool", tool, *ports, *options], [str(self.program), *arguments]

    def run(self, tool, planted, variant, limit, options=None):
        slot = self.slots.get()
        try:
            command = self.command(tool, planted.arguments(variant), slot, options)
            text, timed_out, seconds = self.execute(
                command, self.folder / f"{planted.name}.{variant}.{tool}", limit
            )
            return Run(planted, text, timed_out, seconds)
        finally:
            self.slots.put(slot)

    def execute(self, command, name, limit):
        """Runs a program under a tool, each with a file of its own for what it prints. Ends all
        that the two have started if they take too long."""
        tool, program = command
        log, out = Path(f"{name}.tool.txt"), Path(f"{name}.txt")
        log.unlink(missing_ok=True)
        command = [*tool, "--log-file", str(log.resolve()), *program]
        started, timed_out = time.monotonic(), False
        with out.open("w") as file:
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                return str(error), False, time.monotonic() - started
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                timed_out = True
                # The program first, and then the tool may say what it has.
                children = descendants(process.pid)
                for child in children:
                    kill(child)
                try:
                    process.wait(3)
                except subprocess.TimeoutExpired:
                    children += descendants(process.pid)
                for child in children:
                    kill(child)
                kill(process.pid, group=True)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    print(f"compare.py: process {process.pid} does not end", flush=True)
        seconds = time.monotonic() - started
        text = out.read_text(errors="replace")
        if log.exists():
            text += "\n" + log.read_text(errors="replace")
        with out.open("w") as file:
            ending = f"stopped after {limit} s" if timed_out else f"status {process.returncode}"
            file.write(f"{' '.join(command)}\n{text}\n{ending}, {seconds:.1f} s\n")
        log.unlink(missing_ok=True)
        return text, timed_out, seconds


def build(nvcc, arch, folder, compute):
    program = folder / "main"
    architectures = [arch]
    if arch == "native" and re.fullmatch(r"\d+\.\d+", compute):
        architectures.append("sm_" + compute.replace(".", ""))
    for architecture in architectures:
        command = [
            nvcc, "-O2", "-lineinfo", "-std=c++17", f"-arch={architecture}",
            "-I", str(HERE), str(HERE / "main.cu"), "-o", str(program),
        ]
        print(" ".join(command), flush=True)
        text, code = output(command, timeout=240)
        (folder / "nvcc.txt").write_text(text)
        no_gpu = "Cannot find valid GPU" in text and architecture != architectures[-1]
        if code == 0 and not no_gpu:
            return program, architecture
        print(text, flush=True)
    print("compare.py: main.cu does not compile")
    sys.exit(2)


def usable_options(runner, kernels, limit):
    """Every tool's options, or none where it does not take them, as a twin shows."""
    probe = next(p for p in kernels if p.name == "left_neighbour")
    for tool in TOOLS:
        for options in (runner.options[tool], []):
            run = runner.run(tool, probe, "twin", 3 * limit, options)
            with_what = " ".join([tool, *options])
            print(f"probe: {with_what}: {run.state}, {run.seconds:.1f} s", flush=True)
            if run.state in ("silent", "found"):
                runner.options[tool] = options
                break
            print(run.text)
        else:
            print(f"compare.py: {tool} does not work here")
            sys.exit(2)


class Results:
    """What is known so far, and its file."""

    def __init__(self, path, head, kernels):
        self.path, self.head, self.kernels = path, head, kernels
        self.runs, self.retried = {}, []
        self.lock, self.started, self.written = threading.Lock(), time.monotonic(), 0.0

    def put(self, planted, variant, tool, run):
        with self.lock:
            self.runs[planted.name, variant, tool] = run
            if time.monotonic() - self.written > 1:
                self.write()

    def run(self, planted, variant, tool):
        return self.runs.get((planted.name, variant, tool))

    def state(self, planted, variant, tool):
        if variant == "fault" and planted.not_applicable():
            return "n/a"
        run = self.run(planted, variant, tool)
        return run.state if run else "skipped"

    def finders(self, planted):
        """The runs that found the fault, by tool."""
        runs = {tool: self.run(planted, "fault", tool) for tool in TOOLS}
        return {tool: run for tool, run in runs.items() if run and run.state == "found"}

    def right_line(self, planted):
        return any(run.right_line for run in self.finders(planted).values())

    def right_thread(self, planted):
        return any(run.right_thread for run in self.finders(planted).values())

    def reported(self, planted):
        """The tools that report something of the twin."""
        return [tool for tool in TOOLS if self.state(planted, "twin", tool) == "found"]

    def kernel(self, planted):
        entry = {"name": planted.name, "class": planted.wants}
        entry.update({tool: self.state(planted, "fault", tool) for tool in TOOLS})
        entry["right_line"] = self.right_line(planted)
        entry["right_thread"] = self.right_thread(planted)
        entry["twin"] = {tool: self.state(planted, "twin", tool) for tool in TOOLS}
        if planted.not_applicable():
            entry["not_applicable"] = planted.not_applicable()
        runs = {v: {t: self.run(planted, v, t) for t in TOOLS} for v in ("fault", "twin")}
        entry["runs"] = {
            variant: {tool: run.details for tool, run in of.items() if run}
            for variant, of in runs.items()
        }
        return entry

    def seconds(self):
        """The tools' own, added up over runs at the same time, and those that went by."""
        total = {tool: 0.0 for tool in TOOLS}
        for (_, _, tool), run in self.runs.items():
            total[tool] += run.seconds
        total["wall"] = time.monotonic() - self.started
        return {key: round(value, 1) for key, value in total.items()}

    def write(self):
        data = dict(self.head)
        data["kernels"] = [self.kernel(p) for p in self.kernels]
        data["retried"] = self.retried
        data["seconds"] = self.seconds()
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps(data, indent=1) + "\n")
        part.replace(self.path)
        self.written = time.monotonic()


def run_all(runner, results, jobs, keys, limits, deadline):
    """Runs what there is time for."""

    def work(key):
        planted, variant, tool = key
        if time.monotonic() < deadline:
            run = runner.run(tool, planted, variant, limits(planted, variant))
            results.put(planted, variant, tool, run)

    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        for done in [pool.submit(work, key) for key in keys]:
            done.result()


# The table


def table(results):
    head = ["class", "planted", "found by any", *TOOLS, "right line", "right thread",
            "twins with a report"]
    rows, total = [], [0] * (len(head) - 1)
    for cls in CLASSES:
        all_of_class = [p for p in results.kernels if p.wants == cls]
        kernels = [p for p in all_of_class if not p.not_applicable()]
        found = [p for p in kernels if results.finders(p)]
        row = [
            len(kernels),
            len(found),
            *(sum(t in results.finders(p) for p in kernels) for t in TOOLS),
            sum(map(results.right_line, found)),
            sum(map(results.right_thread, found)),
            sum(bool(results.reported(p)) for p in all_of_class),
        ]
        total = [a + b for a, b in zip(total, row)]
        rows.append([cls, *row])
    rows.append(["all", *total])
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def remarks(results, planted, variant):
    """What is neither found nor silent, in brackets."""
    words = []
    for tool in TOOLS:
        state, run = results.state(planted, variant, tool), results.run(planted, variant, tool)
        if state in ("hangs", "failed", "skipped"):
            words.append(f"{tool} {state}")
        if state == "silent" and run.report.warnings + run.report.infos:
            words.append(f"{tool} only warns")
        if state == "silent" and run.program:
            words.append(f"{tool} silent, but {run.program}")
    return f" ({', '.join(words)})" if words else ""


def lists(results):
    text = []

    def part(title, lines):
        text.append(f"\n{title}:\n")
        text.extend(f"- {line}" for line in lines or ["none"])

    def named(planted):
        return f"`{planted.name}` ({planted.wants})"

    applicable = [p for p in results.kernels if not p.not_applicable()]
    missed = [p for p in applicable if not results.finders(p)]
    found = [p for p in applicable if results.finders(p)]
    part(
        f"Found by no tool, {len(missed)}",
        [named(p) + remarks(results, p, "fault") for p in missed],
    )
    part(
        "Found, but at another line or at none",
        [f"{named(p)}, by {', '.join(results.finders(p))}" for p in found
         if not results.right_line(p)],
    )
    part(
        "Found, but only as a call of CUDA's that failed or as a count",
        [named(p) for p in found
         if all(run.report.unexplained for run in results.finders(p).values())],
    )
    part(
        "Not applicable",
        [f"{named(p)}: {p.not_applicable()}" for p in results.kernels if p.not_applicable()],
    )
    first = {}
    for p in results.kernels:
        for tool in results.reported(p):
            records = results.run(p, "twin", tool).report.error_records
            lines = records[0].lines[:2] if records else ["no record"]
            first[p.name, tool] = " / ".join(line.strip() for line in lines)
    part(
        "Twins with a report",
        [f"{named(p)}, {tool}: {first[p.name, tool]}" for p in results.kernels
         for tool in results.reported(p)],
    )
    part(
        "Twins otherwise not silent",
        [named(p) + remarks(results, p, "twin") for p in results.kernels
         if remarks(results, p, "twin")],
    )
    return "\n".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", metavar="WORK_FOLDER", type=Path)
    parser.add_argument("out", metavar="OUT.json", type=Path)
    parser.add_argument("--jobs", type=int, default=8, help="runs at a time (8)")
    parser.add_argument("--arch", default="native", help="nvcc's -arch (native)")
    parser.add_argument("--timeout", type=float, default=20, help="seconds for a run (20)")
    parser.add_argument("--endless", type=float, default=10, help="and for an endless fault (10)")
    parser.add_argument("--budget", type=float, default=330,
                        help="seconds for everything, after which nothing is started (330)")
    parser.add_argument("--only", default="", help="only kernels whose names contain this")
    args = parser.parse_args()
    started = time.monotonic()
    deadline = started + args.budget

    nvcc, sanitizer = find("nvcc"), find("compute-sanitizer")
    nvcc_text, _ = output([nvcc, "--version"])
    tool_text, _ = output([sanitizer, "--version"])
    help_text, _ = output([sanitizer, "--help"])
    smi, code = output([
        shutil.which("nvidia-smi") or "/usr/local/nvidia/bin/nvidia-smi",
        "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader",
    ])
    gpu, driver, compute = "unknown", "unknown", ""
    fields = [field.strip() for field in smi.strip().splitlines()[:1] for field in field.split(",")]
    if code == 0 and len(fields) == 3:
        gpu, driver, compute = fields
    else:
        print(f"compare.py: nvidia-smi: {smi.strip()}")
    version = re.search(r"Version (.+)", tool_text)
    release = re.search(r"release .+", nvcc_text)
    options = {tool: [*COMMON, *OPTIONS[tool]] for tool in TOOLS}
    if SHARED_INIT[0] in help_text:
        options["initcheck"] += SHARED_INIT[1]

    kernels = read_suite(HERE.parent)
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    program, arch = build(nvcc, args.arch, args.work, compute)
    built, _ = output([str(program), "list"])
    differ = set(built.split()) ^ {p.name for p in kernels}
    if differ:
        print(f"compare.py: main.cu and the .hip files differ in {sorted(differ)}")
        sys.exit(2)
    compiled = time.monotonic() - started
    runner = Runner(sanitizer, program, args.work / "output", options, args.jobs)
    usable_options(runner, kernels, args.timeout)

    kernels = [p for p in kernels if args.only in p.name]
    head = {
        "format": "attnbench-sanitizers/1",
        "tool": f"compute-sanitizer {version.group(1) if version else tool_text.strip()}",
        "compiler": f"nvcc {release.group(0) if release else nvcc_text.strip()}, -arch={arch}",
        "gpu": gpu,
        "driver": driver,
        "options": {tool: " ".join(runner.options[tool]) for tool in TOOLS},
        "jobs": args.jobs,
        "compile_seconds": round(compiled, 1),
    }
    results = Results(args.out, head, kernels)
    results.write()

    def limits(planted, variant):
        return args.endless if planted.endless and variant == "fault" else args.timeout

    # Faults that may hang go after the others, and the twins last.
    faults = [p for p in kernels if not p.not_applicable()]
    faults.sort(key=lambda p: p.wants == "barrier")
    keys = [(p, "fault", tool) for p in faults for tool in TOOLS]
    keys += [(p, "twin", tool) for p in kernels for tool in TOOLS]
    run_all(runner, results, args.jobs, keys, limits, deadline)

    # What failed, and what hung that should not, may have had too little of a busy machine.
    def again(key):
        planted, variant, tool = key
        state = results.state(planted, variant, tool)
        may_hang = variant == "fault" and planted.wants == "barrier"
        return state == "failed" or (state == "hangs" and not may_hang)

    second = [key for key in keys if again(key)]
    if second:
        print(f"again, {len(second)} runs", flush=True)
        results.retried = [f"{p.name}.{variant}.{tool}" for p, variant, tool in second]
        run_all(runner, results, 2, second, limits, deadline)
    results.write()

    print(f"\n{head['tool']}; {head['compiler']}; {gpu}, driver {driver}; "
          f"{results.seconds()['wall']} s, {args.jobs} at a time; "
          f"tools' seconds: {results.seconds()}\n")
    print(table(results))
    print(lists(results))
    states = [results.state(p, variant, tool) for p, variant, tool in keys]
    amiss = {state: states.count(state) for state in ("failed", "skipped") if state in states}
    if amiss:
        print(f"\nNot everything ran: {amiss}")
    sys.exit(1 if amiss else 0)


if __name__ == "__main__":
    main()

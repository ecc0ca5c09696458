#!/usr/bin/env python3
"""Tests of what compare.py makes of the tools' reports, and of its runs with tools that are none.

    python3 props/sanitize/compare/compare_test.py
"""

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import compare  # noqa: E402
from compare import Report, right_line, right_thread, term  # noqa: E402

SUITE = {p.name: p for p in compare.read_suite(compare.HERE.parent)}
HEAD = "========= COMPUTE-SANITIZER\n"


def line_of(name):
    return min(SUITE[name].lines)


def memcheck(name, thread, block=0, line=None):
    line = line_of(name) if line is None else line
    return HEAD + (
        "========= Invalid __global__ read of size 16 bytes\n"
        f"=========     at void memory::{name}<(bool)1>(float *, const float *, const float *, "
        f"float *, int)+0x1a0 in memory.hip:{line}\n"
        f"=========     by thread ({thread},0,0) in block ({block},0,0)\n"
        "=========     Address 0x7f7a4e000000 is out of bounds\n"
        "=========     and is 1 bytes after the nearest allocation at 0x7f7a4e000000 of size 4 "
        "bytes\n"
        "=========\n"
        '========= Program hit cudaErrorLaunchFailure (error 719) due to "unspecified launch '
        'failure" on CUDA API call to cudaDeviceSynchronize.\n'
        "=========\n"
        "CUDA error: kernel: cudaErrorLaunchFailure: unspecified launch failure\n"
        "========= Target application returned an error\n"
        "========= ERROR SUMMARY: 2 errors\n"
    )


class Parsing(unittest.TestCase):
    def test_suite(self):
        self.assertEqual(len(SUITE), 58)
        not_here = [p.name for p in SUITE.values() if p.not_applicable()]
        self.assertEqual(not_here, ["slots_for_wave32", "lane_bit_in_32"])
        self.assertEqual(SUITE["sentinel_divided"].shape, ["1", "128", "0", "-1"])
        for p in SUITE.values():
            self.assertEqual(p.cls, p.wants)
            self.assertTrue(p.lines or not p.marked, p.name)
            self.assertTrue(any(p.may_be(t) for t in range(256)), p.name)

    def test_terms(self):
        terms = {"7": 7, "W": 32, "W-1": 31, "W+1": 33, "W/2": 16, "W*2": 64, "3W": 96, "3*W": 96}
        for text, value in terms.items():
            self.assertEqual(term(text), value)
        self.assertRaises(ValueError, term, "x")
        race = SUITE["syncwarp_for_syncthreads"]
        self.assertEqual([t for t in range(128) if race.may_be(t)], [0, 32])
        wave = SUITE["wave_leaves_early"]
        self.assertEqual([t for t in range(128) if wave.may_be(t)], list(range(32)))

    def test_memcheck(self):
        p = SUITE["q_chunks"]
        report = Report(memcheck("q_chunks", 6))
        self.assertEqual((report.errors, report.warnings, report.state(False)), (2, 0, "found"))
        self.assertFalse(report.unexplained)
        self.assertTrue(right_line(p, report) and right_thread(p, report))
        self.assertFalse(right_thread(p, Report(memcheck("q_chunks", 96))))
        self.assertFalse(right_line(p, Report(memcheck("q_chunks", 6, line=1))))

    def test_block(self):
        p = SUITE["packed_as_padded"]
        self.assertTrue(right_thread(p, Report(memcheck("packed_as_padded", 100, 7))))
        self.assertFalse(right_thread(p, Report(memcheck("packed_as_padded", 100, 6))))

    def test_failed_call_only(self):
        text = HEAD + (
            '========= Program hit cudaErrorLaunchFailure (error 719) due to "unspecified launch '
            'failure" on CUDA API call to cudaDeviceSynchronize.\n'
            "========= ERROR SUMMARY: 1 error\n"
        )
        report = Report(text)
        self.assertEqual(report.state(False), "found")
        self.assertTrue(report.unexplained)

    def test_print_limit(self):
        text = HEAD + (
            "========= Invalid __shared__ write of size 4 bytes\n=========     at k+0x10\n"
            "========= ERROR SUMMARY: 1024 errors\n"
            "========= ERROR SUMMARY: 24 errors were not printed. Use --print-limit option to "
            "adjust the number of printed errors\n"
        )
        self.assertEqual(Report(text).errors, 1024)

    def race(self, word, summary, threads=(0, 127)):
        lines = SUITE["combine_no_barrier"].lines
        first, second = min(lines), max(lines)
        at = "void race::combine_no_barrier<(bool)1>(float *)"
        return HEAD + (
            f"========= {word}: Potential RAW hazard detected at __shared__ 0x0 in block (0,0,0)"
            " :\n"
            f"=========     Write Thread ({threads[0]},0,0) at {at}+0x1c0 in race.hip:{first}\n"
            f"=========     Read Thread ({threads[1]},0,0) at {at}+0x2a0 in race.hip:{second}\n"
            "=========     Current Value : 0\n"
            "=========\n"
            f"========= {word}: Race reported between Write access at {at}+0x1c0 in "
            f"race.hip:{first}\n"
            f"=========     and Read access at {at}+0x2a0 in race.hip:{second} [16 hazards]\n"
            "=========\n"
            f"========= RACECHECK SUMMARY: {summary}\n"
        )

    def test_racecheck(self):
        p = SUITE["combine_no_barrier"]
        report = Report(self.race("Error", "2 hazards displayed (2 errors, 0 warnings)"))
        self.assertEqual((report.errors, report.warnings, report.state(False)), (2, 0, "found"))
        self.assertEqual(len(report.records), 2)
        self.assertTrue(right_line(p, report) and right_thread(p, report))
        elsewhere = self.race("ERROR", "2 hazards displayed (2 errors, 0 warnings)", (0, 126))
        self.assertFalse(right_thread(p, Report(elsewhere)))
        self.assertEqual(Report(elsewhere).state(False), "found")

    def test_racecheck_without_threads(self):
        text = HEAD + (
            "========= Error: Race reported between Read access at k+0x10 in race.hip:20\n"
            "=========     and Write access at k+0x20 in race.hip:25 [16 hazards]\n"
            "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n"
        )
        p, report = SUITE["combine_no_barrier"], Report(text)
        self.assertEqual(report.error_records[0].places(), {("race.hip", 20), ("race.hip", 25)})
        self.assertFalse(right_thread(p, report))

    def test_racecheck_warnings(self):
        for word in ("Warning", "WARN", "Warning: (Warp Level Programming)"):
            report = Report(self.race(word, "2 hazards displayed (0 errors, 2 warnings)"))
            self.assertEqual((report.errors, report.warnings), (0, 2))
            self.assertEqual(report.state(False), "silent")
            self.assertFalse(right_line(SUITE["combine_no_barrier"], report))

    def test_initcheck(self):
        line = line_of("rescales_unset_output")
        text = HEAD + (
            "========= Uninitialized __global__ memory read of size 4 bytes\n"
            f"=========     at void init::rescales_unset_output<(bool)1>(float *)+0x70 in "
            f"init.hip:{line}\n"
            "=========     by thread (23,0,0) in block (1,0,0)\n"
            "=========     Address 0x7f3c7ec000fc\n"
            "=========\ndone\n========= ERROR SUMMARY: 48 errors\n"
        )
        p, report = SUITE["rescales_unset_output"], Report(text)
        self.assertEqual((report.state(False), report.errors), ("found", 48))
        self.assertTrue(right_line(p, report) and right_thread(p, report))

    def test_initcheck_of_a_copy(self):
        text = HEAD + (
            "========= Host API memory access error at host access to 0x7f0000 of size 1024 bytes\n"
            "=========     Uninitialized access at 0x7f0000 on access by cudaMemcpy source\n"
            "=========\ndone\n========= ERROR SUMMARY: 1 error\n"
        )
        p, report = SUITE["never_written"], Report(text)
        self.assertEqual(report.state(False), "found")
        self.assertTrue(right_line(p, report))
        self.assertFalse(right_thread(p, report))

    def test_synccheck(self):
        line = line_of("barrier_in_tail_test")
        text = HEAD + "".join(
            f"========= Barrier error detected. Divergent thread(s) in block{end}\n"
            f"=========     at [clone k] outlineSync()+0x11f0 in sm_30_intrinsics.hpp:110\n"
            f"=========     by thread ({t},0,0) in block (0,0,0)\n"
            f"=========         Device Frame: void k<(bool)1>()+0xe40 in barrier.hip:{line}\n"
            "=========\n"
            for t, end in ((32, ""), (96, "."))
        )
        p = SUITE["barrier_in_tail_test"]
        report = Report(text + "========= ERROR SUMMARY: 2 errors\n")
        self.assertEqual((report.state(False), len(report.records)), ("found", 2))
        self.assertTrue(right_line(p, report) and right_thread(p, report))
        # Stopped before it could count.
        self.assertEqual(Report(text, True).state(True), "found")

    def test_without_indent(self):
        text = (
            "========= Barrier error detected. Invalid arguments\n"
            "========= at __cuda_sm70_warpsync+0x30\n"
            "========= by thread (0,0,0) in block (0,0,0)\n"
            "========= Device Frame:k(int *)+0x3c0 in /a/b/barrier.hip:140\n"
            "========= ERROR SUMMARY: 1 error\n"
        )
        report = Report(text)
        self.assertEqual(len(report.records), 1)
        self.assertEqual(report.records[0].places(), {("barrier.hip", 140)})
        self.assertTrue(right_thread(SUITE["mask_without_self"], report))

    def test_others(self):
        clean = HEAD + "done\n========= ERROR SUMMARY: 0 errors\n"
        self.assertEqual(Report(clean).state(False), "silent")
        none = HEAD + "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
        self.assertEqual(Report(none).state(False), "silent")
        for text in (
            "",
            HEAD,
            HEAD + "========= Error: Target application terminated before first instrumented API "
            "call\n========= Error: couldn't find exit code.\n",
            HEAD + "========= Internal Sanitizer Error: out of memory\n=========     Frame\n"
            "========= ERROR SUMMARY: 1 error\n",
        ):
            self.assertEqual(Report(text).state(False), "failed", text)
            self.assertEqual(Report(text, True).state(True), "hangs", text)
        killed = HEAD + (
            "========= Error: process didn't terminate successfully\n"
            "========= Target application returned an error\n========= ERROR SUMMARY: 1 error\n"
        )
        self.assertEqual(Report(killed, True).state(True), "hangs")

    def test_program(self):
        clean = HEAD + "========= ERROR SUMMARY: 0 errors\n"
        for said, state in (
            ("done\n", "silent"),
            ("CUDA error: kernel: cudaErrorX: x\n", "silent"),
            ("CUDA error: cudaMalloc: cudaErrorMemoryAllocation: out of memory\n", "failed"),
            ("CUDA error: launch: cudaErrorNoKernelImageForDevice: x\n", "failed"),
            (memcheck("q_chunks", 6).replace("error: kernel", "error: launch"), "found"),
            ("", "failed"),
        ):
            self.assertEqual(compare.Run(SUITE["q_chunks"], said + clean, False, 0).state, state)


# A compute-sanitizer that runs nothing on a GPU: it finds what its name says, in its way.
SANITIZER = r'''#!/usr/bin/env python3
import os, subprocess, sys, time
sys.path.insert(0, {here!r})
sys.dont_write_bytecode = True
import compare
if "--version" in sys.argv:
    print("NVIDIA (R) Compute Sanitizer\nVersion 1.2.3.0 (build 1) (public-release)"); sys.exit()
if "--help" in sys.argv:
    print("  --initcheck-address-space arg"); sys.exit()
value = lambda key: sys.argv[sys.argv.index(key) + 1]
tool, log = value("--tool"), open(value("--log-file"), "w")
program = next(i for i, a in enumerate(sys.argv) if a.endswith("/main"))
name, variant = sys.argv[program + 1], sys.argv[program + 2]
if "--print-limit" in sys.argv and tool == "synccheck":
    print("unrecognised option '--print-limit'"); sys.exit(255)
p = {{p.name: p for p in compare.read_suite(compare.HERE.parent)}}[name]
log.write("========= COMPUTE-SANITIZER\n")
# When the program is ended, the tool goes on to its summary.
if variant == "fault" and p.endless:
    log.flush()
    subprocess.run(["sleep", "98765"])
find = {{"memory": "memcheck", "race": "racecheck", "init": "initcheck", "barrier": "synccheck"}}
# The first time it does not work for one kernel.
if name == "ring_negative" and variant == "twin" and not os.path.exists(log.name + ".seen"):
    open(log.name + ".seen", "w"); sys.exit(1)
found = variant == "fault" and find.get(p.wants) == tool
found = found or (variant == "twin" and name == "refill_early" and tool == "synccheck")
if found:
    line = min(p.lines) if p.lines else 1
    log.write(f"========= Planted fault\n=========     at k in {{p.file}}:{{line}}\n")
    log.write(f"=========     by thread (5,0,0) in block (0,0,0)\n=========\n")
print("done")
if tool == "racecheck":
    log.write(f"========= RACECHECK SUMMARY: 1 hazard displayed "
              f"({{int(found)}} errors, {{int(name == 'tree_without_syncwarp')}} warnings)\n")
else:
    log.write(f"========= ERROR SUMMARY: {{int(found)}} errors\n")
'''
NVCC = r'''#!/bin/sh
case "$*" in
    --version) echo "Cuda compilation tools, release 13.0, V13.0.88"; exit;;
    *-arch=native*) echo "no GPU for native"; exit 1;;
esac
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\nprintf "%%s\\n" {names}\n' >"$2"; chmod +x "$2"
'''


class Whole(unittest.TestCase):
    def script(self, path, text):
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run_compare(self, folder, *arguments):
        env = {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "CUDA_HOME": "", "CUDA_PATH": ""}
        return subprocess.run(
            [sys.executable, str(compare.HERE / "compare.py"), f"{folder}/work",
             f"{folder}/out.json", *arguments],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )

    def test_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            missing = self.run_compare(folder)
            self.assertEqual(missing.returncode, 2, missing.stdout)
            self.assertIn("nvcc is missing", missing.stdout)
            self.script(folder / "nvcc", NVCC.replace("{names}", " ".join(SUITE)))
            self.script(folder / "nvidia-smi", "#!/bin/sh\necho 'NVIDIA X, 580.1, 9.0'\n")
            missing = self.run_compare(folder)
            self.assertIn("compute-sanitizer is missing", missing.stdout)
            self.script(folder / "compute-sanitizer", SANITIZER.format(here=str(compare.HERE)))
            started = time.monotonic()
            done = self.run_compare(folder, "--jobs", "8", "--endless", "2", "--timeout", "30")
            if "-v" in sys.argv:
                print(done.stdout)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertLess(time.monotonic() - started, 250)
            data = json.loads((folder / "out.json").read_text())
            left = subprocess.run(["ps", "-eo", "args"], stdout=subprocess.PIPE, text=True).stdout
        self.assertNotIn("sleep 98765", left)
        self.assertEqual(data["format"], "attnbench-sanitizers/1")
        self.assertEqual((data["gpu"], data["driver"]), ("NVIDIA X", "580.1"))
        self.assertIn("-arch=sm_90", data["compiler"])
        self.assertIn("--initcheck-address-space all", data["options"]["initcheck"])
        self.assertEqual(data["options"]["synccheck"], "")
        kernels = {k["name"]: k for k in data["kernels"]}
        self.assertEqual(len(kernels), 58)
        for name, k in kernels.items():
            states = {t: k[t] for t in compare.TOOLS}
            expected = dict.fromkeys(compare.TOOLS, "silent")
            finder = dict(zip(compare.CLASSES, ("memcheck", "racecheck", "initcheck", "synccheck")))
            if k["class"] in finder:
                expected[finder[k["class"]]] = "found"
            if SUITE[name].endless:
                expected = {**dict.fromkeys(compare.TOOLS, "hangs"), "synccheck": "found"}
            if SUITE[name].not_applicable():
                expected = dict.fromkeys(compare.TOOLS, "n/a")
            self.assertEqual(states, expected, name)
            self.assertEqual(k["right_line"], "found" in expected.values(), name)
            odd = name == "refill_early"
            self.assertEqual(k["twin"]["synccheck"], "found" if odd else "silent", name)
        self.assertTrue(kernels["one_key_more"]["right_thread"])
        self.assertFalse(kernels["q_chunks"]["right_thread"])
        self.assertEqual(len(data["retried"]), 4)
        self.assertIn("| all | 56 | 47 | 12 | 12 | 11 | 12 | 47 |", done.stdout)
        self.assertIn("- `refill_early` (race), synccheck: Planted fault / at k in ", done.stdout)


if __name__ == "__main__":
    unittest.main()

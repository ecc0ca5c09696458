"""The timing: rounds of new buffers, in each a graph of calls for each kernel in turn."""

import contextlib
import math
import statistics
import warnings

from libraries import KERNELS, Buffers, Missing, one_line, say

WARM = 3  # replays before the timed ones
TRIAL = 5  # timed replays of each setting, where a kernel has several
WORST_ERROR = 1e-2  # relative L2; a kernel above it is wrong and is not timed


class ContextLost(Exception):
    """The GPU's context is broken, as after an illegal access: no more can be measured."""


def quantile(ordered, share):
    """Of sorted numbers, with a straight line between neighbours."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(rounds):
    """Of the microseconds a call of each round's replays."""
    ordered = sorted(us for replays in rounds for us in replays)
    return {
        "median": round(quantile(ordered, 0.5), 4),
        "p5": round(quantile(ordered, 0.05), 4),
        "p95": round(quantile(ordered, 0.95), 4),
        "samples": len(ordered),
        "rounds": [round(statistics.median(replays), 4) for replays in rounds],
    }


def row(name, shape, layout, sets, rounds, setting):
    """A result; a round is its times, its error and whether a graph was replayed."""
    times, errors, graphs = zip(*rounds)
    us = summary(times)
    result = {
        "kernel": name,
        "shape": shape.name,
        "batch": shape.batch,
        "num_heads": shape.num_heads,
        "num_kv_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "seq_len": shape.seq_len,
        "window_len": shape.window_len,
        "dtype": shape.dtype,
        "layout": layout,
        "kv_bytes": shape.kv_bytes,
        "sets": sets,
        "calls": sets * shape.repeats(sets),
        "graph": all(graphs),
        "us": us,
        "gbs": round(shape.kv_bytes / us["median"] / 1e3, 2),
        "tokens_per_s": round(shape.batch / us["median"] * 1e6, 1),
        "rel_l2_error": float(f"{max(errors):.3e}"),
    }
    if setting is not None:
        result["settings"] = {"kv_splits": setting}
    return result


class Bench:
    def __init__(self, torch, kernels, absent, l2_bytes, rounds, replays, seed):
        self.torch, self.kernels, self.absent, self.l2_bytes = torch, kernels, absent, l2_bytes
        self.rounds, self.replays, self.seed = rounds, replays, seed

    def measure(self, shape, layout):
        """The rows of all kernels on one shape in one layout, and what is missing."""
        sets = shape.sets(self.l2_bytes)
        rounds, settings, why = {name: [] for name in self.kernels}, {}, dict(self.absent)
        for name, kernel in self.kernels.items():
            with self.recording(name, why):
                kernel.prepare(shape, layout)
        for number in range(self.rounds):
            alive = [name for name in self.kernels if name not in why]
            if not alive:
                break
            unmade = {}
            with self.recording("buffers", unmade):
                buffers = Buffers(self.torch, shape, layout, sets, self.seed + number)
            if unmade:
                why.update(dict.fromkeys(alive, f"no buffers: {unmade['buffers']}"))
                break
            # Each round begins with another kernel, so that none is always the first.
            turn = number % len(alive)
            for name in alive[turn:] + alive[:turn]:
                kernel = self.kernels[name]
                with self.recording(name, why):
                    if name not in settings:
                        settings[name] = self.fastest(kernel, buffers)
                    times = self.time(kernel, buffers, settings[name], self.replays)
                    rounds[name].append(times)
            del buffers
            self.torch.cuda.empty_cache()
        rows = [
            row(name, shape, layout, sets, rounds[name], settings[name])
            for name in self.kernels
            if name not in why
        ]
        missing = [
            {"kernel": name, "shape": shape.name, "layout": layout, "why": why[name]}
            for name in KERNELS
            if name in why
        ]
        for found in rows:
            us, gbs = found["us"]["median"], found["gbs"]
            say(f"{shape.name} {layout} {found['kernel']}: {us:.2f} us, {gbs:.0f} GB/s")
        for lacking in missing:
            say(f"{shape.name} {layout} {lacking['kernel']}: {lacking['why']}")
        return rows, missing

    @contextlib.contextmanager
    def recording(self, name, why):
        """Turns what goes wrong into a reason."""
        try:
            yield
        except Exception as error:
            why[name] = one_line(error)
            try:
                self.torch.cuda.synchronize()
            except Exception as broken:
                text = f"the GPU's context was lost in {name}: {one_line(broken)}"
                raise ContextLost(text) from error

    def fastest(self, kernel, buffers):
        """The setting of a kernel that is fastest on this shape."""
        choices = kernel.settings(buffers.shape)
        if len(choices) == 1:
            return choices[0]
        trial = {c: statistics.median(self.time(kernel, buffers, c, TRIAL)[0]) for c in choices}
        return min(trial, key=trial.get)

    def time(self, kernel, buffers, setting, replays):
        """Microseconds a call of each replay, the error, and whether a graph was replayed."""
        calls = [kernel.call(buffers, number, setting) for number in range(buffers.sets)]
        repeats = buffers.shape.repeats(buffers.sets)
        with kernel.context():
            buffers.forget_outputs()
            # What is compiled at the first call is compiled here, outside the graph.
            before = self.judge(kernel, buffers, self.first(calls[0]))
            buffers.forget_outputs()
            launch, outputs, graph = self.capture(calls, repeats)
            times = self.replay(launch, replays)
            after = self.judge(kernel, buffers, outputs[0])
        return [us / (repeats * len(calls)) for us in times], max(before, after), graph

    def first(self, call):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            try:
                return call()
            except Exception as error:  # PyTorch says in warnings why a backend refuses
                said = [w.message for w in heard if issubclass(w.category, UserWarning)]
                reasons = dict.fromkeys(one_line(reason) for reason in (error, *said))
                raise Missing("; ".join(reasons)) from error

    def judge(self, kernel, buffers, out):
        error = buffers.error(out, kernel.paged)
        if math.isnan(error):
            raise Missing("wrong: an output is not finite")
        if error > WORST_ERROR:
            raise Missing(f"wrong: relative L2 error {error:.2e} against float64")
        return error

    def capture(self, calls, repeats):
        """What launches all calls, where set 0's output will be, and whether that is a graph."""
        torch, outputs = self.torch, [None]

        def plain():
            for _ in range(repeats):
                outputs[0] = calls[0]()
                for call in calls[1:]:
                    call()

        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph):
                plain()
            return graph.replay, outputs, True
        except Exception as error:
            torch.cuda.set_stream(stream)  # a capture that fails leaves its own behind
            torch.cuda.synchronize()
            say(f"no graph, plain launches: {one_line(error)}")
            return plain, outputs, False

    def replay(self, launch, count):
        """Microseconds of each replay, by the GPU's clock.

        All are queued at once. The GPU then never waits for a launch, which would count with the
        calls: from the CPU's launch to a graph's first kernel it takes as long as a short kernel.
        """
        torch = self.torch
        for _ in range(WARM):
            launch()
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        for begin, end in pairs:
            begin.record()
            launch()
            end.record()
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) * 1e3 for begin, end in pairs]

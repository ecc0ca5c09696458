"""The named shapes of attnbench-shapes/1, and how many buffers and calls each is timed with."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

DTYPES = {"f16": "float16", "bf16": "bfloat16"}  # ours, and PyTorch's name; two bytes each
PAGE = 16  # keys in a page of FlashInfer's cache

LEAST_BYTES = 256_000_000  # K and V of all sets, so that short sequences come from memory too
LEAST_SETS, MOST_SETS = 2, 512
LEAST_CALLS = 20  # in a graph, so that its launch weighs little


class Fault(Exception):
    """The request or the machine is at fault: said in one message, exit status 2."""


@dataclass(frozen=True)
class Shape:
    name: str
    batch: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    seq_len: int
    window_len: int  # 0: no window; else the query sees that many last keys
    dtype: str

    @property
    def group(self):
        return self.num_heads // self.num_kv_heads

    @property
    def attended(self):
        return min(self.seq_len, self.window_len or self.seq_len)

    @property
    def keys(self):
        """The rows of a sequence that the query sees."""
        return slice(self.seq_len - self.attended, self.seq_len)

    @property
    def capacity(self):
        """Rows allocated a sequence: whole pages, since FlashInfer reads the same buffers."""
        return math.ceil(self.seq_len / PAGE) * PAGE

    @property
    def kv_bytes(self):
        """What has to be read of K and V, counted once."""
        return 2 * self.batch * self.num_kv_heads * self.attended * self.head_dim * 2

    def sets(self, l2_bytes):
        """Sets of buffers: the cache must have lost the first when the last has been read."""
        wanted = math.ceil(max(LEAST_BYTES, 4 * l2_bytes) / self.kv_bytes)
        return min(max(LEAST_SETS, wanted), MOST_SETS)

    def repeats(self, sets):
        """How often a graph goes round all sets."""
        return math.ceil(LEAST_CALLS / sets)


def read_shape(entry):
    try:
        shape = Shape(**entry)
    except TypeError as error:
        raise Fault(str(error)) from error
    for field in ("batch", "num_heads", "num_kv_heads", "head_dim", "seq_len", "window_len"):
        value = getattr(shape, field)
        if type(value) is not int or value < (0 if field == "window_len" else 1):
            raise Fault(f"{field} is {value!r}")
    if shape.num_heads % shape.num_kv_heads:
        raise Fault("num_heads is no multiple of num_kv_heads")
    if shape.dtype not in DTYPES:
        raise Fault(f"dtype {shape.dtype!r} is none of {', '.join(DTYPES)}")
    return shape


def read_shapes(path):
    """The shapes by name, and the sets of their names."""
    try:
        text = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Fault(f"cannot read the shapes of {path}: {error}") from error
    if not isinstance(text, dict) or text.get("format") != "attnbench-shapes/1":
        raise Fault(f"{path} is not of the format attnbench-shapes/1")
    shapes, sets = {}, text.get("sets", {})
    for number, entry in enumerate(text.get("shapes", []), 1):
        try:
            shape = read_shape(entry)
        except Fault as fault:
            raise Fault(f"{path}: shape {number}: {fault}") from fault
        if shape.name in shapes or shape.name in sets:
            raise Fault(f"{path}: the name {shape.name} is there twice")
        shapes[shape.name] = shape
    for name, members in sets.items():
        for member in members:
            if member not in shapes:
                raise Fault(f"{path}: set {name}: no shape {member}")
    return shapes, sets


def choose(words, shapes, sets):
    """The shapes that names of shapes and sets stand for, each once, in that order."""
    names = []
    for word in words:
        if word not in sets and word not in shapes:
            known = f"sets: {', '.join(sets)}; shapes: {', '.join(shapes)}"
            raise Fault(f"no shape or set {word!r}; {known}")
        names += sets.get(word, [word])
    return [shapes[name] for name in dict.fromkeys(names)]

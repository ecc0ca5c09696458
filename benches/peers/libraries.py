"""The kernels that are timed, called as each library means it, and the buffers they share."""

import contextlib
import hashlib
import importlib.util
import math
import os
import sys
import types
from pathlib import Path

from shapes import DTYPES, PAGE

KERNELS = (
    "cudnn",
    "flash_attention_2",
    "flashinfer_tensor_cores",
    "flashinfer_cuda_cores",
    "sglang_triton",
)
DEVICE = "cuda"


class Missing(Exception):
    """A kernel cannot be timed on a shape; the text is the reason that is recorded."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def one_line(error):
    # A library tells of its files by where they are in the user's folder.
    text = " ".join(str(error).split()).replace(os.path.expanduser("~"), "~") or type(error).__name__
    return text if len(text) <= 400 else text[:397] + "..."


class Buffers:
    """The inputs and outputs of all sets, random, shared by the kernels of a round.

    K and V of a set are flat memory that each kernel views in its own way.
    """

    def __init__(self, torch, shape, layout, sets, seed):
        self.torch, self.shape, self.layout, self.sets = torch, shape, layout, sets
        dtype = getattr(torch, DTYPES[shape.dtype])
        generator = torch.Generator(device=DEVICE).manual_seed(seed)

        def randn(*size):
            return torch.randn(sets, *size, dtype=dtype, device=DEVICE, generator=generator)

        self.q = randn(shape.batch, shape.num_heads, shape.head_dim)
        elements = shape.batch * shape.capacity * shape.num_kv_heads * shape.head_dim
        self.k, self.v = randn(elements), randn(elements)
        self.out = torch.empty_like(self.q)
        self.references = {}

    def forget_outputs(self):
        """So that no kernel passes with what the one before it wrote."""
        self.out.fill_(math.nan)

    def rows(self, flat):
        """[batch, kv head, row, dim] of a cache that holds each sequence in one piece."""
        s = self.shape
        if self.layout == "NHD":
            return flat.view(s.batch, s.capacity, s.num_kv_heads, s.head_dim).transpose(1, 2)
        return flat.view(s.batch, s.num_kv_heads, s.capacity, s.head_dim)

    def pages(self, flat):
        """[page, …] of FlashInfer, for which the layout is that of a page."""
        s = self.shape
        page = (PAGE, s.num_kv_heads) if self.layout == "NHD" else (s.num_kv_heads, PAGE)
        return flat.view(-1, *page, s.head_dim)

    def error(self, out, paged):
        """Relative L2 error of set 0 in its first and last sequence, against float64."""
        torch, s = self.torch, self.shape
        if not bool(torch.isfinite(out).all()):
            return math.nan
        some = sorted({0, s.batch - 1})
        paged = paged and self.layout == "HND"  # in NHD the pages in order are the rows in order
        if paged not in self.references:

            def rows(flat):
                if paged:
                    pages = self.pages(flat).unflatten(0, (s.batch, -1))[some]
                    return pages.transpose(1, 2).flatten(2, 3)
                return self.rows(flat)[some]

            k, v = (rows(flat[0])[:, :, s.keys].double() for flat in (self.k, self.v))
            q = self.q[0][some].double().unflatten(1, (s.num_kv_heads, s.group))
            scores = q @ k.transpose(2, 3) / math.sqrt(s.head_dim)
            self.references[paged] = (torch.softmax(scores, -1) @ v).flatten(1, 2)
        right = self.references[paged]
        out = out.reshape(s.batch, s.num_heads, s.head_dim)[some].double()
        return float((out - right).norm() / right.norm())


class Kernel:
    """`prepare` comes once for a shape and layout, `call` for each set of each round."""

    paged = False  # reads the cache by pages

    def prepare(self, shape, layout):
        """Raises where the kernel cannot do the shape."""

    def settings(self, shape):
        """What the library leaves to its caller; the fastest is picked in the first round."""
        return [None]

    def context(self):
        return contextlib.nullcontext()

    def call(self, buffers, number, setting):
        """A function without arguments: launches on one set and returns the output."""
        raise NotImplementedError


class Sdpa(Kernel):
    """PyTorch's scaled_dot_product_attention, held to one backend."""

    def __init__(self, torch, backend):
        from torch.nn.attention import SDPBackend, sdpa_kernel

        self.attend = torch.nn.functional.scaled_dot_product_attention
        self.context = lambda: sdpa_kernel(getattr(SDPBackend, backend))

    def call(self, buffers, number, setting):
        s = buffers.shape
        k, v = (buffers.rows(flat[number])[:, :, s.keys] for flat in (buffers.k, buffers.v))
        q = buffers.q[number].unsqueeze(2)
        return lambda: self.attend(q, k, v, enable_gqa=s.group > 1)


class FlashInfer(Kernel):
    """FlashInfer's batch decode over pages that lie in order, planned outside the graph.

    The lengths are fixed, so the plan is made for them alone; `use_cuda_graph` would leave room
    for other lengths and launch blocks that find no work.
    """

    paged = True

    def __init__(self, torch, flashinfer, workspace, tensor_cores):
        self.torch, self.wrappers = torch, {}
        self.make = lambda layout: flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            workspace, layout, use_tensor_cores=tensor_cores
        )

    def prepare(self, shape, layout):
        torch, pages = self.torch, shape.capacity // PAGE
        if layout not in self.wrappers:
            self.wrappers[layout] = self.make(layout)
        self.wrapper = self.wrappers[layout]
        indptr = torch.arange(shape.batch + 1, dtype=torch.int32, device=DEVICE) * pages
        indices = torch.arange(shape.batch * pages, dtype=torch.int32, device=DEVICE)
        last = torch.full_like(indptr[1:], (shape.seq_len - 1) % PAGE + 1)
        dtype = getattr(torch, DTYPES[shape.dtype])
        self.wrapper.plan(
            indptr,
            indices,
            last,
            shape.num_heads,
            shape.num_kv_heads,
            shape.head_dim,
            PAGE,
            window_left=shape.window_len - 1,  # counts the keys before the last; -1 is no window
            q_data_type=dtype,
            kv_data_type=dtype,
        )

    def call(self, buffers, number, setting):
        run, q, out = self.wrapper.run, buffers.q[number], buffers.out[number]
        cache = buffers.pages(buffers.k[number]), buffers.pages(buffers.v[number])
        return lambda: run(q, cache, out=out)


class SglangTriton(Kernel):
    """SGLang's Triton decode kernel, over slots that lie in order.

    The engine takes 8 splits of a sequence at most by default; here the fastest number is taken.
    """

    def __init__(self, torch, attend, multiprocessors):
        self.torch, self.attend, self.multiprocessors = torch, attend, multiprocessors

    def settings(self, shape):
        heads = min(16, shape.group)  # that a block takes together
        blocks = shape.batch * math.ceil(shape.num_heads / heads)

        def useful(splits):
            return splits * 32 <= shape.attended and blocks * splits <= 16 * self.multiprocessors

        return [splits for splits in (1, 2, 4, 8, 16, 32, 64) if splits == 1 or useful(splits)]

    def prepare(self, shape, layout):
        if layout != "NHD":
            raise Missing("SGLang keeps its cache token by token: NHD only")
        torch, sequences = self.torch, self.torch.arange(shape.batch + 1, device=DEVICE)
        first = sequences[:-1] * shape.capacity + shape.keys.start
        self.slots = (first[:, None] + torch.arange(shape.attended, device=DEVICE)).flatten()
        self.indptr = (sequences * shape.attended).int()
        self.scratch = {}

    def call(self, buffers, number, setting):
        torch, s = self.torch, buffers.shape
        if setting not in self.scratch:
            heads = (s.batch, s.num_heads, setting)
            self.scratch[setting] = (
                torch.empty(*heads, s.head_dim, dtype=torch.float32, device=DEVICE),
                torch.empty(*heads, dtype=torch.float32, device=DEVICE),
                torch.full((s.batch,), setting, dtype=torch.int32, device=DEVICE),
            )
        scratch = (*self.scratch[setting], setting, 1 / math.sqrt(s.head_dim))
        k, v = (f[number].view(-1, s.num_kv_heads, s.head_dim) for f in (buffers.k, buffers.v))
        q, out = buffers.q[number], buffers.out[number]

        def call():
            self.attend(q, k, v, out, self.indptr, self.slots, *scratch)
            return out

        return call


def build_flashinfer(torch, shapes, names):
    """Compiles all that is needed at once: FlashInfer by itself goes one module at a time."""
    from flashinfer.jit import build_jit_specs, gen_batch_decode_module, gen_batch_prefill_module

    specs = []
    for name, dim, window in sorted({(s.dtype, s.head_dim, s.window_len > 0) for s in shapes}):
        dtype = getattr(torch, DTYPES[name])
        what = (dtype, dtype, dtype, torch.int32, dim, dim, 0, window, False)
        if "flashinfer_cuda_cores" in names:
            specs.append(gen_batch_decode_module(*what))
        if "flashinfer_tensor_cores" in names:  # runs as a prefill of one token
            specs.append(gen_batch_prefill_module("fa2", *what, False))
    say(f"FlashInfer: {len(specs)} modules, compiled where they are not cached")
    build_jit_specs(specs)


def import_sglang(path):
    """SGLang's function and its version: of the installed package, or of that one file of it."""
    if path is None:
        import sglang
        from sglang.srt.layers.attention.triton_ops.decode_attention import decode_attention_fwd

        return decode_attention_fwd, getattr(sglang, "__version__", "unknown")
    # The file asks its package for one thing only: whether this is AMD's stack.
    utils = types.ModuleType("sglang.srt.utils")
    utils.is_hip = lambda: False
    for name in ("sglang", "sglang.srt"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["sglang.srt.utils"] = utils
    spec = importlib.util.spec_from_file_location("sglang_decode_attention", path)
    if spec is None:
        raise Missing(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return module.decode_attention_fwd, f"file, sha256 {digest[:12]}"


def load(torch, names, shapes, sglang_file):
    """The kernels that are here, why the others are not, and the libraries' versions."""
    versions = {"flashinfer": None, "sglang": None}

    def flashinfer(names):
        import flashinfer

        versions["flashinfer"] = flashinfer.__version__
        try:
            build_flashinfer(torch, shapes, names)
        except Exception as error:  # a plan builds what it needs by itself, and says what fails
            say(f"FlashInfer: {one_line(error)}")
        workspace = torch.zeros(256 << 20, dtype=torch.uint8, device=DEVICE)
        return [FlashInfer(torch, flashinfer, workspace, "tensor" in name) for name in names]

    def sglang(_):
        attend, versions["sglang"] = import_sglang(sglang_file)
        gpu = torch.cuda.get_device_properties(DEVICE)
        return [SglangTriton(torch, attend, gpu.multi_processor_count)]

    families = (
        (("cudnn",), lambda _: [Sdpa(torch, "CUDNN_ATTENTION")]),
        (("flash_attention_2",), lambda _: [Sdpa(torch, "FLASH_ATTENTION")]),
        (("flashinfer_tensor_cores", "flashinfer_cuda_cores"), flashinfer),
        (("sglang_triton",), sglang),
    )
    kernels, absent = {}, {}
    for family, make in families:
        wanted = [name for name in family if name in names]
        try:
            kernels.update(zip(wanted, make(wanted) if wanted else []))
        except Exception as error:  # one that breaks at import is as missing as one not installed
            absent.update(dict.fromkeys(wanted, f"cannot be loaded: {one_line(error)}"))
    return kernels, absent, versions

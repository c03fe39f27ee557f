"""Where a call's time goes: its events under torch's profiler, sorted into parts.

What torch runs by itself is told by the names of its operators, each by the time that it took less
that of the operators it called; so an operator that hands its work on brings only what the handing
on cost. What no operator accounts for stands ``between`` them: Python, dispatch, allocation.

The profiler itself slows a call of many small steps. So these times are for shares and rates, and
are taken when everything else has been measured.
"""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

from attention.kernels.onednn import full_rate
from results.schema import PROFILE_PARTS
from suites.measure.clock import Timed, sample_in_turn, timer_for
from suites.measure.process import seconds_left
from suites.measure.roofs import Repeated

MIN_CALLS, MAX_CALLS = 3, 8
"""Calls under the profiler, of which the fastest is kept: the least disturbed."""

SHARE, MOST_SHAPES = 0.02, 8
"""Shapes of products are listed from this share of the call on, the longest first."""

TRACE = ".json.gz"
"""How the name of a trace ends."""

OPERATORS = 40
"""Of the table of operators."""

ALONE_BUDGET_S = 0.05
REPEATED = 40
"""A product is repeated by itself only if the time limit leaves so many times what it took: some
ten calls, with room for slower ones."""

ALONE_BYTES = 2**30
"""A product whose operands and result take more is not repeated by itself."""

OPERANDS: Mapping[str, int] = {
    "mm": 0, "bmm": 0, "mv": 0, "dot": 0, "vdot": 0,
    "addmm": 1, "_addmm_activation": 1, "baddbmm": 1, "addbmm": 1, "addmv": 1,
}  # fmt: skip
"""Products, and the position of the left one of their two factors."""

EXPONENTIALS = frozenset(
    {"exp", "exp2", "expm1", "softmax", "_softmax", "_safe_softmax", "log_softmax",
     "_log_softmax", "logsumexp"}
)  # fmt: skip
COPIES = frozenset(
    {"copy", "clone", "cat", "stack", "repeat", "roll", "flip", "index", "index_select",
     "index_put", "_index_put_impl", "_unsafe_index_put", "index_copy", "index_add", "gather",
     "take", "scatter", "scatter_add", "scatter_reduce", "masked_scatter", "embedding",
     "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only", "fill", "zero",
     "constant_pad_nd", "select_backward", "slice_backward"}
)  # fmt: skip
BETWEEN = frozenset(
    {"_fused_sdp_choice", "_local_scalar_dense", "_reshape_alias", "_to_copy", "_unsafe_view",
     "alias", "as_strided", "chunk", "conj", "contiguous", "detach", "diagonal", "einsum", "empty",
     "empty_like", "empty_strided", "expand", "expand_as", "flatten", "full", "full_like", "inner",
     "item", "layer_norm", "lift_fresh", "linear", "mH", "mT", "matmul", "movedim", "narrow",
     "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "numpy_T", "ones",
     "ones_like", "outer", "pad", "permute", "real", "reshape", "resize", "resize_as",
     "resolve_conj", "resolve_neg", "result_type", "scaled_dot_product_attention",
     "_scaled_dot_product_attention_math", "select", "set", "slice", "split", "split_with_sizes",
     "squeeze", "swapaxes", "t", "tensordot", "to", "transpose", "unbind", "unflatten", "unfold",
     "unsafe_split", "unsqueeze", "view", "view_as", "zeros", "zeros_like"}
)  # fmt: skip
"""Operators that make a view, allocate, or hand on to others."""

FUSED = re.compile(
    r"_scaled_dot_product_(?!attention_math)|(flash|efficient|cudnn)_attention|flash_(attn|fwd|bwd)"
)
COMPILED = re.compile(r"^(Torch-Compiled Region|CompiledFunction|## Call CompiledFxGraph|triton_)")

DTYPES: Mapping[str, torch.dtype] = {
    "float": torch.float32, "double": torch.float64, "c10::BFloat16": torch.bfloat16,
    "c10::Half": torch.float16,
}  # fmt: skip
"""By the name that the profiler gives them."""


@dataclass(frozen=True)
class Event:
    """One event of a call.

    Attributes:
        name: as the profiler gives it, e.g. ``aten::bmm``.
        seconds: its own time, without that of `children`; on a GPU that of its own kernels.
        shapes: of its inputs; ``()`` where one is no tensor.
        dtypes: of its inputs.
        children: what it called.
    """

    name: str
    seconds: float
    shapes: tuple[tuple[int, ...], ...] = ()
    dtypes: tuple[str, ...] = ()
    children: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Product:
    """A product ``[batch, n, k] @ [batch, k, m]`` in the dtype of the left factor."""

    batch: int
    n: int
    k: int
    m: int
    dtype: str = ""

    @property
    def operations(self) -> int:
        """A multiply-add counts two."""
        return 2 * self.batch * self.n * self.k * self.m

    @property
    def elements(self) -> int:
        """Of both factors and the result."""
        return self.batch * (self.n * self.k + self.k * self.m + self.n * self.m)

    def shown(self, usual: torch.dtype) -> str:
        """Write the shape, with the dtype where it is not the `usual` one."""
        own = DTYPES.get(self.dtype, usual)
        suffix = "" if own == usual else f" {str(own).removeprefix('torch.')}"
        return f"{self.batch} x [{self.n}, {self.k}] @ [{self.k}, {self.m}]{suffix}"


@dataclass
class Share:
    """What one part, or one shape of product, took: seconds, calls, operations (0 = uncounted)."""

    seconds: float = 0.0
    calls: int = 0
    operations: int = 0

    def add(self, seconds: float, operations: int) -> None:
        """Add a call."""
        self.seconds += seconds
        self.calls += 1
        self.operations += operations


@dataclass
class Sorted:
    """The events of a call, sorted: by part, and the products by shape."""

    parts: defaultdict[str, Share] = field(default_factory=lambda: defaultdict(Share))
    products: defaultdict[Product, Share] = field(default_factory=lambda: defaultdict(Share))


def profiled(
    timed: Timed,
    device: str,
    *,
    kernel: str,
    dtype: torch.dtype,
    budget_s: float,
    seed: int,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Call a few times under the profiler and say where the fastest call's time went.

    Args:
        timed: what is called; it is warm.
        device: ``cpu`` or ``cuda``.
        kernel: the name of the kernel that ran: where it ends in ``+onednn``, products are
            repeated on that library too.
        dtype: of products whose own is not told.
        budget_s: time of the calls together, at least `MIN_CALLS` of them.
        seed: of the products' factors.
        keep: where the fastest call's trace is kept, and beside it (``.txt``) its table of
            operators; ``None`` = nowhere.

    Returns:
        The record's ``profile``: ``calls``, ``seconds`` of the fastest, ``parts`` (each with
        ``seconds``, ``calls`` and ``operations``) and ``products`` (``shape``, ``calls``,
        ``seconds``, ``operations`` and ``alone``: op/s of that product by itself).
    """
    calls, seconds, events = _fastest_call(timed, device, budget_s, keep)
    timed.prepare()
    found = sort_events(events, on_device=device == "cuda")
    busy = sum(share.seconds for share in found.parts.values())
    found.parts["between"].seconds = max(0.0, seconds - busy)
    listed = sorted(found.products.items(), key=lambda item: -item[1].seconds)[:MOST_SHAPES]
    return {
        "calls": calls,
        "seconds": seconds,
        "parts": {part: _told(found.parts[part]) for part in PROFILE_PARTS},
        "products": [
            {
                "shape": product.shown(dtype),
                **_told(share),
                "alone": _rate_alone(
                    product, DTYPES.get(product.dtype, dtype), device,
                    at_full_rate=kernel.endswith("+onednn"), seed=seed,
                ) if REPEATED * share.seconds / share.calls <= seconds_left() else None,
            }
            for product, share in listed
            if share.seconds >= SHARE * seconds
        ],
    }  # fmt: skip


def _told(share: Share) -> dict[str, Any]:
    return {**vars(share), "operations": share.operations or None}


# -- calling -------------------------------------------------------------------------------------


def _keep(profiler: torch.profiler.profile, device: str, file: Path) -> None:
    """Write a trace that Perfetto reads, and the operators by their own time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(file))
    by = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=by, row_limit=OPERATORS)
    file.with_name(file.name.removesuffix(TRACE) + ".txt").write_text(table, encoding="utf-8")


def _fastest_call(
    timed: Timed, device: str, budget_s: float, keep: Path | None
) -> tuple[int, float, list[Event]]:
    """Return how many calls were made, the seconds of the fastest, and its events."""
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    best: tuple[float, torch.profiler.profile] | None = None
    calls, spent = 0, 0.0
    while calls < MIN_CALLS or (calls < MAX_CALLS and spent < budget_s):
        timed.prepare()
        with torch.profiler.profile(activities=activities, record_shapes=True) as profiler:
            seconds = _seconds(timed, device)
        timed.settle()
        calls, spent = calls + 1, spent + seconds
        if best is None or seconds < best[0]:
            best = seconds, profiler
    assert best is not None
    if keep is not None:
        _keep(best[1], device, keep)
    return calls, best[0], _events(best[1], device)


def _seconds(timed: Timed, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    timed.call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _events(profiler: torch.profiler.profile, device: str) -> list[Event]:
    """Return the outermost events; on a GPU an operator's time is that of its kernels."""
    told = profiler.events() or []
    outer = [e for e in told if e.cpu_parent is None]
    if device == "cuda":
        # A kernel is an event too; its time is already that of the operator that launched it.
        outer = [e for e in outer if e.device_type.name == "CPU"]
    return [_event(e, on_device=device == "cuda") for e in outer]


def _event(told: Any, *, on_device: bool) -> Event:
    own = told.self_device_time_total if on_device else told.self_cpu_time_total
    return Event(
        told.name,
        max(0.0, own * 1e-6),
        tuple(tuple(shape) if _is_shape(shape) else () for shape in told.input_shapes or ()),
        tuple(getattr(told, "input_dtypes", None) or ()),
        tuple(_event(child, on_device=on_device) for child in told.cpu_children),
    )


def _is_shape(told: object) -> bool:
    """Whether it is the shape of one tensor; a list of tensors has a list of them."""
    return isinstance(told, list | tuple) and all(isinstance(size, int) for size in told)


# -- sorting -------------------------------------------------------------------------------------


def sort_events(events: Iterable[Event], *, on_device: bool = False) -> Sorted:
    """Sort the events of a call, and those within them.

    An operator that called another one of its part counts as no call and no operations: the inner
    one did the work. ``between`` is left out: it is what the call took and these did not.

    Args:
        events: the outermost ones.
        on_device: their times are those of a GPU's kernels, of which none lies ``between``.
    """
    found = Sorted()
    for event in _flat(events):
        part = part_of(event.name)
        if part == "between" and on_device and event.seconds > 0:
            part = "passes" if event.name.startswith("aten::") else "compiled"
        if part == "between":
            continue
        if any(part_of(inner.name) == part for inner in _flat(event.children)):
            found.parts[part].seconds += event.seconds
            continue
        product = product_of(event) if part == "products" else None
        operations = product.operations if product else 0
        if part == "exponentials" and event.shapes:
            operations = math.prod(event.shapes[0])
        found.parts[part].add(event.seconds, operations)
        if product is not None:
            found.products[product].add(event.seconds, operations)
    return found


def _flat(events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        yield event
        yield from _flat(event.children)


def part_of(name: str) -> str:
    """Return the part of `results.schema.PROFILE_PARTS` that an event belongs to, by its name."""
    if FUSED.search(name):
        return "fused"
    if COMPILED.match(name):
        return "compiled"
    space, _, operator = name.rpartition("::")
    if space != "aten":
        return "between"
    operator = operator.removesuffix("_")
    if operator in OPERANDS:
        return "products"
    if operator in EXPONENTIALS:
        return "exponentials"
    if operator in COPIES:
        return "copies"
    return "between" if operator in BETWEEN else "passes"


def product_of(event: Event) -> Product | None:
    """Return the product that an event computed; ``None`` where its shapes do not tell."""
    at = OPERANDS[event.name.removeprefix("aten::").removesuffix("_")]
    factors = event.shapes[at : at + 2]
    dtype = event.dtypes[at] if len(event.dtypes) > at else ""
    match factors:
        case ((batch, n, k), (_, _, m)):
            return Product(batch, n, k, m, dtype)
        case ((n, k), (_, m)):
            return Product(1, n, k, m, dtype)
        case ((n, k), (_,)):
            return Product(1, n, k, 1, dtype)
        case ((k,), (_,)):
            return Product(1, 1, k, 1, dtype)
    return None


# -- a product by itself -------------------------------------------------------------------------


def _rate_alone(
    product: Product, dtype: torch.dtype, device: str, *, at_full_rate: bool, seed: int
) -> float | None:
    """Return the op/s of a product of contiguous factors into memory that is there already."""
    if not product.operations or product.elements * dtype.itemsize > ALONE_BYTES:
        return None
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    left = draw(product.batch, product.n, product.k)
    right = draw(product.batch, product.k, product.m)
    out = torch.empty(product.batch, product.n, product.m, dtype=dtype, device=device)
    work = Repeated(_multiply(left, right, out))
    with full_rate(left) if at_full_rate else nullcontext():
        timings = sample_in_turn([work], timer_for(device), budget_s=ALONE_BUDGET_S, seed=seed)
    middle = sorted(timings[0].samples)[len(timings[0].samples) // 2]
    return product.operations / max(middle, 1e-9)


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> Callable[[], object]:
    return lambda: torch.bmm(left, right, out=out)

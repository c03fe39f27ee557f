"""The events of a profiled call, sorted into parts and products by the names of operators.

What torch runs by itself is told by the names of its operators, each by the time that it took less
that of the operators it called; so an operator that hands its work on brings only what the handing
on cost. What no operator accounts for stands ``between`` them: Python, dispatch, allocation.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

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
        dtype = DTYPES.get(self.dtype, usual)
        suffix = "" if dtype == usual else f" {str(dtype).removeprefix('torch.')}"
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


def sort_events(events: Iterable[Event], *, on_device: bool = False) -> Sorted:
    """Sort the events of a call, and those within them.

    An operator that called another one of its part counts as no call and no operations: the inner
    one did the work. ``between`` is left out: it is what the call took and these did not.

    Args:
        events: the outermost ones.
        on_device: their times are those of a GPU's kernels, of which none lies ``between``.
    """
    ordered = Sorted()
    for event in _flat(events):
        part = part_of(event.name)
        if part == "between" and on_device and event.seconds > 0:
            part = "passes" if event.name.startswith("aten::") else "compiled"
        if part == "between":
            continue
        if any(part_of(inner.name) == part for inner in _flat(event.children)):
            ordered.parts[part].seconds += event.seconds
            continue
        product = product_of(event) if part == "products" else None
        operations = product.operations if product else 0
        if part == "exponentials" and event.shapes:
            operations = math.prod(event.shapes[0])
        ordered.parts[part].add(event.seconds, operations)
        if product is not None:
            ordered.products[product].add(event.seconds, operations)
    return ordered


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

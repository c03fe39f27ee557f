"""Where a call's time goes: its events under torch's profiler, sorted into parts.

The profiler itself slows a call of many small steps. So these times are for shares and rates, and
are taken when everything else has been measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

from attention.kernels.onednn import full_rate
from results.schema import PROFILE_PARTS
from suites.measure.clock import sample_in_turn
from suites.measure.process import seconds_left
from suites.measure.profile_events import DTYPES, Event, Product, Share, sort_events
from suites.measure.roofs import Repeated
from suites.measure.timers import Timed, timer_for

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
    ordered = sort_events(events, on_device=device == "cuda")
    busy = sum(share.seconds for share in ordered.parts.values())
    ordered.parts["between"].seconds = max(0.0, seconds - busy)
    listed = sorted(ordered.products.items(), key=lambda item: -item[1].seconds)[:MOST_SHAPES]
    return {
        "calls": calls,
        "seconds": seconds,
        "parts": {part: _told(ordered.parts[part]) for part in PROFILE_PARTS},
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
    events = profiler.events() or []
    outer = [e for e in events if e.cpu_parent is None]
    if device == "cuda":
        # A kernel is an event too; its time is already that of the operator that launched it.
        outer = [e for e in outer if e.device_type.name == "CPU"]
    return [_event(e, on_device=device == "cuda") for e in outer]


def _event(event: Any, *, on_device: bool) -> Event:
    microseconds = event.self_device_time_total if on_device else event.self_cpu_time_total
    return Event(
        event.name,
        max(0.0, microseconds * 1e-6),
        tuple(tuple(shape) if _is_shape(shape) else () for shape in event.input_shapes or ()),
        tuple(getattr(event, "input_dtypes", None) or ()),
        tuple(_event(child, on_device=on_device) for child in event.cpu_children),
    )


def _is_shape(told: object) -> bool:
    """Whether it is the shape of one tensor; a list of tensors has a list of them."""
    return isinstance(told, list | tuple) and all(isinstance(size, int) for size in told)


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

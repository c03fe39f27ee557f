"""From options and presets to a list of cases and the order in which they are launched.

No torch and no asv here: what a backend accepts is asked of it elsewhere, before the first launch.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from results.schema import IDENTITY, Allocator, Arm, Case, Level, Mode, content_id


@dataclass(frozen=True)
class Preset:
    """What a sweep measures where the options do not say otherwise.

    Attributes:
        seq_lens: lengths in tokens.
        modes: of each length.
        launches: fresh processes per case.
        budget_s: sampling time per arm, in seconds.
        case_timeout_s: the longest that one launch may take, in seconds.
        backends: what is compared; empty = all that are registered.
        by_device: further fields of `Grid` on a device, in place of those above or its defaults.
    """

    seq_lens: tuple[int, ...]
    modes: tuple[Mode, ...]
    launches: int
    budget_s: float
    case_timeout_s: float
    backends: tuple[Arm, ...] = ()
    by_device: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_QUICK = (768, 1024, 1536, 2048, 4096)
_STANDARD = (512, *_QUICK[:4], 3072, 4096, 6144, 8192, 16384)
_FULL = (128, 256, *_STANDARD, 24576, *(2**power for power in range(15, 21)))

_BOTH: tuple[Mode, ...] = ("forward", "training")

_EXACT = (
    Arm("sdpa"),
    *(Arm("sdpa", {"kernel": kernel}) for kernel in ("flash", "cudnn", "efficient", "math")),
    Arm("xformers"),
)
_ON_A_GPU: Mapping[str, Any] = {
    "seq_lens": (16384,), "dtypes": ("bfloat16",), "batches": (4,), "num_heads": (16,),
}  # fmt: skip

PRESETS: Mapping[str, Preset] = {
    "quick": Preset(_QUICK, _BOTH, launches=3, budget_s=0.25, case_timeout_s=60.0),
    "standard": Preset(_STANDARD, _BOTH, launches=3, budget_s=0.5, case_timeout_s=180.0),
    "full": Preset(_FULL, _BOTH, launches=3, budget_s=1.0, case_timeout_s=600.0),
    "kernels": Preset(
        (1024,), _BOTH, launches=3, budget_s=0.5, case_timeout_s=180.0,
        backends=_EXACT, by_device={"cuda": _ON_A_GPU},
    ),
}  # fmt: skip
"""By name. Lengths lie close enough for four of them to fit an exponent; ``kernels`` has one
length, and asks which exact kernel is the fastest."""


@dataclass(frozen=True)
class Grid:
    """A sweep: the product of its axes, and how often and how long each case is measured.

    Attributes:
        backends: what is compared; each is a case of its own.
        shard: ``(i, n)``, from 1: this sweep is the i-th of n parts.
    """

    backends: tuple[Arm, ...]
    seq_lens: tuple[int, ...]
    modes: tuple[Mode, ...]
    levels: tuple[Level, ...] = ("attention",)
    device: str = "cpu"
    dtypes: tuple[str, ...] = ("float32",)
    batches: tuple[int, ...] = (1,)
    num_heads: tuple[int, ...] = (8,)
    head_dims: tuple[int, ...] = (64,)
    threads: tuple[int, ...] = (1,)
    allocators: tuple[Allocator, ...] = ("default",)
    is_causal: bool = False
    compile: bool = False
    seed: int = 0
    launches: int = 1
    budget_s: float = 1.0
    case_timeout_s: float = 60.0
    shard: tuple[int, int] = (1, 1)


class Item(NamedTuple):
    """One launch of one case: what the driver does next."""

    case: Case
    launch: int


def grid_from(preset: str, **chosen: Any) -> Grid:
    """Fill a grid from a preset; `chosen` holds fields of `Grid`, ``None`` = as the preset says.

    No backends, too, means those of the preset.

    Raises:
        ValueError: if there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    values: dict[str, Any] = dict(vars(PRESETS[preset]))
    values.update(values.pop("by_device").get(chosen.get("device"), {}))
    values["threads"] = (available_cores(),)
    given = {key: value for key, value in chosen.items() if value is not None}
    if not given.get("backends"):
        given.pop("backends", None)
    values.update(given)
    return Grid(**values)


def available_cores() -> int:
    """Return the number of processors this process may run on."""
    return len(os.sched_getaffinity(0))


# -- cases ---------------------------------------------------------------------------------------


def cases(grid: Grid) -> list[Case]:
    """Return the speed cases of the grid's shard, series by series, lengths rising."""
    every = [
        _speed_case(grid, arm, seq_len, mode, level, dtype, batch, heads, dim, threads, allocator)
        for arm in grid.backends
        for level in grid.levels
        for mode in grid.modes
        for dtype in grid.dtypes
        for batch in grid.batches
        for heads in grid.num_heads
        for dim in grid.head_dims
        for threads in grid.threads
        for allocator in grid.allocators
        for seq_len in sorted(set(grid.seq_lens))
    ]
    by_series = group(every).values()
    index, count = grid.shard
    return [case for part in list(by_series)[index - 1 :: count] for case in part]


def _speed_case(
    grid: Grid,
    arm: Arm,
    seq_len: int,
    mode: Mode,
    level: Level,
    dtype: str,
    batch: int,
    num_heads: int,
    head_dim: int,
    threads: int,
    allocator: Allocator,
) -> Case:
    return Case(
        kind="speed",
        level=level,
        mode=mode,
        arms=(arm,) if level == "attention" else (arm, Arm(IDENTITY)),
        batch=batch,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        seq_len=seq_len,
        key_len=seq_len,
        device=grid.device,
        dtype=dtype,
        is_causal=grid.is_causal,
        threads=threads,
        allocator=allocator,
        compile=grid.compile,
        seed=grid.seed,
    )


def series_id(case: Case) -> str:
    """Return what the cases that differ in their length alone have in common."""
    content = {k: v for k, v in case.to_json().items() if k not in ("id", "seq_len", "key_len")}
    return content_id(content)


def group(every: Iterable[Case]) -> dict[str, list[Case]]:
    """Gather cases by series, each in rising length; equal cases once."""
    found: dict[str, dict[str, Case]] = defaultdict(dict)
    for case in every:
        found[series_id(case)].setdefault(case.id, case)
    return {
        key: sorted(part.values(), key=lambda case: case.seq_len) for key, part in found.items()
    }


def roof_cases(grid: Grid, *, single_thread: bool) -> list[Case]:
    """Return the cases that measure this machine's peaks in the settings of the grid.

    Args:
        grid: the sweep.
        single_thread: add the peaks of one thread, for every setting that has more.
    """
    threads = sorted({*grid.threads, *([1] if single_thread and grid.device == "cpu" else [])})
    return [
        Case(
            kind="roof", level="attention", mode="forward", arms=(Arm("roof"),),
            batch=0, num_heads=0, num_kv_heads=0, head_dim=0, seq_len=0, key_len=0,
            device=grid.device, dtype=dtype, is_causal=False, threads=count,
            allocator=allocator, compile=False, seed=grid.seed,
        )
        for dtype in grid.dtypes
        for allocator in grid.allocators
        for count in threads
    ]  # fmt: skip


def order(grid: Grid, speed: Sequence[Case]) -> list[Item]:
    """Return every launch of the sweep in the order it is to be run.

    All cases of launch 0 come first, then launch 1, …: a slow change of the machine then spreads
    over all cases. Each round begins with the roofs and is shuffled under the seed, within
    the constraint that a series is run in rising length, so that the shorter lengths predict the
    longer ones.
    """
    items: list[Item] = []
    for launch in range(grid.launches):
        roofs = roof_cases(grid, single_thread=launch == 0) if speed else []
        rng = random.Random(f"{grid.seed}:{launch}")
        items += [Item(case, launch) for case in (*roofs, *_shuffled(speed, rng))]
    return items


def _shuffled(every: Sequence[Case], rng: random.Random) -> list[Case]:
    """Shuffle, then let each series take its places in rising length: a uniform random merge."""
    parts = {key: iter(part) for key, part in group(every).items()}
    places = [series_id(case) for case in every]
    rng.shuffle(places)
    return [next(parts[key]) for key in places]

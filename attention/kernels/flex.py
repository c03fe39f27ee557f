"""Block-sparse softmax attention by FlexAttention, from lists of tiles, never from a dense mask.

Dong et al. 2024, arXiv 2412.05496: one compiled kernel walks, for each tile of queries, the tiles
of keys that a list names, and calls ``mask_mod`` inside those that are seen in part. The lists are
made from a pattern's arithmetic: ``[rows, K]`` numbers, K the tiles that a row reads, never rows ×
columns. `attention.kernels.flex_band` and `attention.kernels.flex_blocks` make them for a band and
for blocks.

Torch asks for lists that are as wide as there are tiles. What lies behind a row's count is never
read, so here the rows of a list overlap in memory: the shape that torch wants, in ``O(rows·K)``
numbers.

**Compilation.** Without it FlexAttention forms the N×N scores; here it always runs compiled, with
``fullgraph``, so that what cannot be compiled raises. Each static key (kind of pattern, its
constants, shapes, dtype, device, scale, whether gradients are wanted, how far apart the lists'
rows lie: a power of two) has a compiled callable with a code object of its own: torch's limit of
compilations a code object is not met by meeting many shapes. A new key compiles, which takes
seconds to a minute. `COMPILED` callables are kept.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from attention.checks import UnsupportedError
from attention.functional import opaque
from attention.problem import Problem

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

Kernel = Literal["auto", "tiled", "flex"]
"""The option of a backend that has tiles of its own beside FlexAttention."""
KERNELS: tuple[str, ...] = get_args(Kernel)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SMALLEST_HEAD = 16
"""Triton multiplies no narrower matrices."""

RUN = 64
"""Rows of tiles that share one copy of the extra keys."""

WHOLE_TILE = 128
"""Tiles that are multiples of it fit whatever blocks torch's kernel prefers."""

COMPILED = 64
INSTEAD = "; kernel='tiled' serves it"


# -- what can be served ---------------------------------------------------------------------------


def flex_reasons(problem: Problem, *, dropout_p: float) -> list[str]:
    """Say why FlexAttention cannot serve a call; empty = it can.

    Args:
        problem: the call.
        dropout_p: probability of dropping an attention weight in this call.
    """
    reasons = _machine_reasons(problem.device)
    if problem.dtype not in DTYPES:
        reasons.append(f"dtype: kernel 'flex' takes float32, bfloat16, float16{INSTEAD}")
    if problem.device == "cuda" and problem.head_dim < SMALLEST_HEAD:
        reasons.append(
            f"head_dim: kernel 'flex' needs at least {SMALLEST_HEAD} on cuda, "
            f"got {problem.head_dim}{INSTEAD}"
        )
    if dropout_p:
        reasons.append(
            f"dropout_p: kernel 'flex' has no dropout on attention weights, "
            f"got {dropout_p}{INSTEAD}"
        )
    return reasons


def has_compiler() -> bool:
    """Whether there is the C++ compiler that torch calls on a CPU: ``CXX``, or else g++."""
    return _find_program(os.environ.get("CXX", "g++")) is not None


_find_program = functools.cache(shutil.which)
_find_module = functools.cache(importlib.util.find_spec)


@opaque
def _machine_reasons(device: str) -> list[str]:
    if device == "cuda" and _find_module("triton") is None:
        return [f"kernel: 'flex' on cuda needs triton, which is not installed{INSTEAD}"]
    if device != "cpu":
        return []
    reasons = []
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        reasons.append(f"kernel: 'flex' on a cpu needs AVX2{INSTEAD}")
    if not has_compiler():
        reasons.append(f"kernel: 'flex' on a cpu needs a C++ compiler, g++ or CXX{INSTEAD}")
    return reasons


def wants_gradient(*tensors: Tensor) -> bool:
    """Whether autograd will ask for a backward pass."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def check_gradient(*tensors: Tensor) -> None:
    """Refuse a backward pass where FlexAttention has none.

    Raises:
        UnsupportedError: on a CPU, if a tensor requires a gradient.
    """
    if tensors[0].device.type == "cpu" and wants_gradient(*tensors):
        raise UnsupportedError(f"kernel: 'flex' has no backward pass on a cpu{INSTEAD}")


def flex_ops(pairs: int, head_dim: int, training: bool) -> int:
    """Return the operations of matrix products over covered pairs.

    Two products forward. The backward pass computes scores and their gradients twice, once for the
    queries (three products) and once for the keys (four).
    """
    return pairs * 2 * head_dim * (9 if training else 2)


# -- lists of tiles -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TileLists:
    """Which tiles each row reads.

    Attributes:
        counts: how many, int32 ``[B or 1, H or 1, rows]``.
        indices: which, int32 ``[B or 1, H or 1, rows, columns]``; entries behind a count belong
            to other rows.
    """

    counts: Tensor
    indices: Tensor


@dataclass(frozen=True)
class SparseTiles:
    """A pattern of tiles: by rows of queries for the forward pass, by columns for the backward.

    Attributes:
        tile: tokens in a tile, of queries as of keys.
        seq_len: queries.
        key_len: keys, copies of extra keys included.
        partial: tiles in which ``mask_mod`` decides.
        partial_by_key: the same, by columns.
        full: tiles that are seen whole; ``None`` = none.
        full_by_key: the same, by columns.
    """

    tile: int
    seq_len: int
    key_len: int
    partial: TileLists
    partial_by_key: TileLists
    full: TileLists | None
    full_by_key: TileLists | None

    @classmethod
    def of(
        cls, partial: Tensor, full: Tensor, *, tile: int, seq_len: int, key_len: int
    ) -> SparseTiles:
        """Make the lists from the tiles that each row reads.

        Args:
            partial: indices of tiles ``[B or 1, H or 1, rows, K]``, -1 = none, none twice a row.
            full: as `partial`; no tile stands in both.
            tile: tokens in a tile.
            seq_len: queries.
            key_len: keys.
        """
        columns = -(-key_len // tile)
        some = bool((full >= 0).any())
        with torch.inference_mode(False):  # lists are cached, and a backward pass keeps them
            return cls(
                tile=tile,
                seq_len=seq_len,
                key_len=key_len,
                partial=by_row(partial, columns),
                partial_by_key=by_column(partial, columns),
                full=by_row(full, columns) if some else None,
                full_by_key=by_column(full, columns) if some else None,
            )

    @property
    def layout(self) -> tuple[tuple[int, ...], ...]:
        """Distances in memory, which compiled code has as constants."""
        lists = (self.partial, self.partial_by_key, self.full, self.full_by_key)
        return tuple(() if one is None else one.indices.stride() for one in lists)

    @property
    def covered_pairs(self) -> int:
        """Query-key pairs that the tiles hold, summed over the batch rows and heads listed."""
        tiles = int(self.partial.counts.sum())
        tiles += 0 if self.full is None else int(self.full.counts.sum())
        return tiles * self.tile**2

    def block_mask(self, mask_mod: MaskMod) -> Any:
        """Return torch's ``BlockMask`` of these lists."""
        from torch.nn.attention.flex_attention import BlockMask

        full, full_by_key = self.full, self.full_by_key
        return BlockMask(
            seq_lengths=(self.seq_len, self.key_len),
            kv_num_blocks=self.partial.counts,
            kv_indices=self.partial.indices,
            full_kv_num_blocks=None if full is None else full.counts,
            full_kv_indices=None if full is None else full.indices,
            q_num_blocks=self.partial_by_key.counts,
            q_indices=self.partial_by_key.indices,
            full_q_num_blocks=None if full_by_key is None else full_by_key.counts,
            full_q_indices=None if full_by_key is None else full_by_key.indices,
            BLOCK_SIZE=(self.tile, self.tile),
            mask_mod=mask_mod,
        )


def by_row(tiles: Tensor, columns: int) -> TileLists:
    """List the tiles of each row, rising; `tiles` is ``[B, H, rows, K]``, -1 = none."""
    ordered = tiles.masked_fill(tiles < 0, columns).sort(dim=3).values
    counts = (tiles >= 0).sum(dim=3, dtype=torch.int32)
    most = max(1, int(counts.max()))
    return TileLists(counts, _overlapping(ordered[..., :most].clamp(max=columns - 1), columns))


def by_column(tiles: Tensor, columns: int) -> TileLists:
    """List the rows that read each tile, rising: what `by_row` says, transposed."""
    batch, heads, rows, _ = tiles.shape
    flat = tiles.reshape(batch * heads, rows, -1)
    group, row, _ = torch.nonzero(flat >= 0, as_tuple=True)  # rows rise within a group
    key = group * columns + flat[flat >= 0]
    order = torch.argsort(key, stable=True)
    key, row = key[order], row[order]
    counts = torch.bincount(key, minlength=batch * heads * columns)
    place = torch.arange(len(key), device=key.device) - (counts.cumsum(0) - counts)[key]
    most = max(1, int(counts.max()))
    table = torch.zeros(len(counts), most, dtype=torch.int64, device=key.device)
    table[key, place] = row
    shape = (batch, heads, columns)
    return TileLists(
        counts.to(torch.int32).view(shape), _overlapping(table.view(*shape, -1), rows)
    )


def _overlapping(table: Tensor, width: int) -> Tensor:
    """Show ``[B, H, rows, K]`` as ``[B, H, rows, width]`` int32 whose rows overlap in memory.

    The distance between rows is a power of two (or `width`), so that few layouts are compiled.
    """
    batch, heads, rows, most = table.shape
    step = min(1 << (most - 1).bit_length(), width)
    store = table.new_zeros(batch * heads * rows * step + width - step, dtype=torch.int32)
    spread = store[: batch * heads * rows * step].view(batch, heads, rows, step)
    spread[..., : min(most, step)] = table[..., :step]
    strides = (heads * rows * step, rows * step, step, 1)
    return store.as_strided((batch, heads, rows, width), strides)


# -- keys that every row reads --------------------------------------------------------------------


@dataclass(frozen=True)
class ExtraColumns:
    """Where copies of the extra keys stand: behind the sequence's keys, one for `RUN` rows each.

    One copy for all would be one column that every row reads: a list as long as the sequence, and
    in the backward pass one program that walks it alone.

    Attributes:
        tile: tokens in a tile.
        rows: rows of tiles.
        count: extra keys.
    """

    tile: int
    rows: int
    count: int

    @property
    def base(self) -> int:
        """First extra key: the sequence's keys are padded up to it."""
        return self.rows * self.tile

    @property
    def tiles(self) -> int:
        """Tiles of one copy."""
        return -(-self.count // self.tile)

    @property
    def width(self) -> int:
        """Keys of one copy, its padding included."""
        return self.tiles * self.tile

    @property
    def copies(self) -> int:
        """Number of copies."""
        return -(-self.rows // RUN)

    @property
    def key_len(self) -> int:
        """Keys in all."""
        return self.base + self.copies * self.width

    def columns(self, device: torch.device) -> Tensor:
        """Return the tiles that each row reads ``[rows, tiles]``."""
        copy = torch.arange(self.rows, device=device) // RUN
        step = torch.arange(self.tiles, device=device)
        return self.rows + copy[:, None] * self.tiles + step

    def join(self, x: Tensor, extra: Tensor) -> Tensor:
        """Append the copies to keys or values: ``[B, h, n, D]``, ``[B, h, X, D]``."""
        pad = torch.nn.functional.pad
        x = pad(x, (0, 0, 0, self.base - x.shape[2]))
        extra = pad(extra, (0, 0, 0, self.width - self.count))
        return torch.cat([x, extra.repeat(1, 1, self.copies, 1)], dim=2)

    def join_mask(self, seen: Tensor, extra: Tensor) -> Tensor:
        """Append to which keys take part, bool ``[B, g, n]``, which extra ones do, ``[B, X]``."""
        pad = torch.nn.functional.pad
        seen = pad(seen, (0, self.base - seen.shape[2]), value=False)
        extra = pad(extra, (0, self.width - self.count), value=False).repeat(1, self.copies)
        return torch.cat([seen, extra[:, None].expand(-1, seen.shape[1], -1)], dim=2)


# -- the compiled call ----------------------------------------------------------------------------


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tiles: SparseTiles,
    mask_mod: MaskMod,
    *,
    scale: float,
    kind: Hashable,
) -> Tensor:
    """Attend over the tiles, compiled.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D]``.
        tiles: the pattern, over N queries and M keys.
        mask_mod: what is seen of a partial tile: of (batch, head, query, key).
        scale: factor on the scores.
        kind: the mask's code and its constants.

    Returns:
        ``[B, H, N, D]``; zeros where a query sees no key.

    Raises:
        UnsupportedError: on a CPU, if a gradient is wanted.
    """
    check_gradient(q, k, v)
    training = wants_gradient(q, k, v)
    key = (kind, q.shape, k.shape, q.dtype, q.device, training, tiles.layout, scale)
    small = q.device.type == "cuda" and tiles.tile % WHOLE_TILE != 0
    run = _compiled(key, any_tile=small and training)
    out: Tensor = run(
        q, k, v, tiles.block_mask(mask_mod), scale, q.shape[1] != k.shape[1],
        _kernel_options(tiles.tile, q),
    )  # fmt: skip
    return out


def _kernel_options(tile: int, q: Tensor) -> dict[str, Any] | None:
    """Keep the kernel's own blocks within small tiles.

    Torch's kernel for a few queries (flex decoding) reads lists in another way: not that one.
    """
    if q.device.type != "cuda":
        return None
    options: dict[str, Any] = {"FORCE_USE_FLEX_ATTENTION": True}
    if tile % WHOLE_TILE == 0:
        return options
    block = min(64, tile & -tile)  # the largest power of two that divides it
    options |= {"fwd_BLOCK_M": block, "fwd_BLOCK_N": block}
    options |= {"fwd_num_stages": 3, "fwd_num_warps": 4}
    if q.dtype != torch.float32:  # for float32 torch itself chooses blocks of 16
        options |= {f"bwd_BLOCK_{name}": block for name in ("M1", "N1", "M2", "N2")}
        options |= {"bwd_num_stages": 2, "bwd_num_warps": 4}
    return options


_callables: OrderedDict[Hashable, Callable[..., Any]] = OrderedDict()


def _compiled(key: Hashable, *, any_tile: bool = False) -> Callable[..., Any]:
    """Return the callable of a static key, the least recently used one making room.

    Args:
        key: what is constant in the compiled code.
        any_tile: torch drops its backward kernel where the tile is no multiple of its preferred
            block, before it reads which block was asked for; only among the candidates of
            autotuning is one that passes. Blocks being fixed, there is nothing to time.
    """
    if key in _callables:
        _callables.move_to_end(key)
        return _callables[key]
    while len(_callables) >= COMPILED:
        _callables.popitem(last=False)
    own = types.FunctionType(_call.__code__.replace(co_name="flex_attention_call"), globals())
    options: dict[str, Any] | None = {"max_autotune": True} if any_tile else None
    _callables[key] = torch.compile(own, dynamic=False, fullgraph=True, options=options)
    return _callables[key]


def _call(
    q: Tensor, k: Tensor, v: Tensor, block_mask: Any, scale: float, gqa: bool, options: Any
) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(
        q, k, v, block_mask=block_mask, scale=scale, enable_gqa=gqa, kernel_options=options
    )

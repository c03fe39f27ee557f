"""Positions: what tells a block the order of its tokens.

Sinusoidal and learned ones are added to the embeddings; rotary ones turn queries and keys in every
layer. A position is the place of a token in its sequence, from 0: ``None`` stands for 0, 1, 2, …
in every sequence, an int64 tensor ``[B, N]`` for anything else: a sequence that goes on, padding
in front.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attention.checks import check_float, check_int
from models.layers.projection import check_hidden


class _AddedPositions(nn.Module):
    """A row for each position, added to the embeddings.

    Args:
        d_model: width of the embeddings.
        max_len: the longest length that will be asked for, in tokens.
    """

    def __init__(self, *, d_model: int, max_len: int) -> None:
        super().__init__()
        self.d_model = check_int("d_model", d_model, minimum=1)
        self.max_len = check_int("max_len", max_len, minimum=1)

    def rows(self, positions: Tensor | slice) -> Tensor:
        """Return the rows of these positions, ``[…, d_model]``."""
        raise NotImplementedError

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return ``x`` with its positions added.

        Args:
            x: ``[B, N, d_model]``, N at most `max_len`.
            positions: int64 ``[B, N]``, each below `max_len`; ``None`` = from 0 on.

        Raises:
            ValueError: if `x` is longer than `max_len` or of another width.
            TypeError: if `x` is not a floating-point tensor.
        """
        check_hidden("x", x, self.d_model)
        if positions is None and x.shape[1] > self.max_len:
            raise ValueError(
                f"x: {x.shape[1]} tokens are more than max_len={self.max_len}, "
                f"the length that the positions were built for"
            )
        rows = self.rows(slice(0, x.shape[1]) if positions is None else positions)
        return x + rows.to(x.dtype)

    def extra_repr(self) -> str:
        """Show the size of the table."""
        return f"d_model={self.d_model}, max_len={self.max_len}"


class SinusoidalPositions(_AddedPositions):
    """Add a fixed sinusoid per channel to the embeddings.

    ``PE(n, 2i) = sin(n / 10000^(2i/d_model))`` and ``PE(n, 2i+1)`` the cosine: Vaswani et al.
    2017, arXiv 1706.03762, section 3.5.

    Args:
        d_model: width of the embeddings; an odd width ends with a sine.
        max_len: the longest length that will be asked for, in tokens.

    Raises:
        ValueError: if an argument is below 1.
        TypeError: if an argument is no whole number.
    """

    table: Tensor

    def __init__(self, *, d_model: int, max_len: int) -> None:
        super().__init__(d_model=d_model, max_len=max_len)
        # Not in the state dict: the table follows from the arguments, and a checkpoint should
        # load into a model built for another length.
        table = torch.empty(max_len, d_model, dtype=torch.float32)
        self.register_buffer("table", table, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Compute the table."""
        if not self.table.is_meta:
            with torch.no_grad():
                self.table.copy_(sinusoidal_table(*self.table.shape))

    def rows(self, positions: Tensor | slice) -> Tensor:
        """Return the rows of these positions."""
        return self.table[positions]


class LearnedPositions(_AddedPositions):
    """Add a learned vector per position to the embeddings.

    Gehring et al. 2017, arXiv 1705.03122, section 3.1; drawn from a normal distribution of
    deviation 0.02, as in BERT.

    Args:
        d_model: width of the embeddings.
        max_len: the longest length that will be asked for, in tokens.
        offset: rows of the table before position 0, which are never read (BART has two).

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if an argument is no whole number.
    """

    def __init__(self, *, d_model: int, max_len: int, offset: int = 0) -> None:
        super().__init__(d_model=d_model, max_len=max_len)
        self.offset = check_int("offset", offset, minimum=0)
        self.weight = nn.Parameter(torch.empty(max_len + offset, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        nn.init.normal_(self.weight, std=0.02)

    def rows(self, positions: Tensor | slice) -> Tensor:
        """Return the rows of these positions."""
        return self.weight[self.offset :][positions]


class _Angles(NamedTuple):
    """Cosine and sine of one call, and what they are of.

    Attributes:
        positions: the tensor that was given, or ``None``.
        version: how often it had been written to; ``None`` = it does not count that.
        held: a copy of it.
        wanted: length, dtype and device of the call.
        cos: ``[B or 1, 1, N, D / 2]``.
        sin: likewise.
    """

    positions: Tensor | None
    version: int | None
    held: Tensor | None
    wanted: tuple[Any, ...]
    cos: Tensor
    sin: Tensor

    def fits(self, positions: Tensor | None, wanted: tuple[Any, ...]) -> bool:
        """Whether a call with these positions needs the same angles.

        Their values are looked at only where a tensor does not count how often it is written to.
        """
        if self.positions is not positions or self.wanted != wanted:
            return False
        if positions is None or self.held is None:
            return True
        version = _version(positions)
        return torch.equal(self.held, positions) if version is None else version == self.version


def _version(x: Tensor) -> int | None:
    """Return how often a tensor was written to in place; one of inference mode does not count."""
    return None if x.is_inference() else x._version


class RotaryPositions(nn.Module):
    """Turn pairs of channels of queries and keys by angles that grow with the position.

    Su et al. 2021, arXiv 2104.09864, eq. 34: channels i and i + D/2 of a head make a pair (the
    paper pairs neighbours, which is the same up to the order of the channels) and are turned by
    ``n·base^(-2i/D)``; a score then depends on the distance alone. The layers of a model share one
    of these, which computes the angles of a call once.

    Args:
        head_dim: D, even.
        base: of the angles.

    Raises:
        ValueError: if D is odd or an argument is out of range.
        TypeError: if an argument has the wrong type.
    """

    def __init__(self, *, head_dim: int, base: float = 10000.0) -> None:
        super().__init__()
        if check_int("head_dim", head_dim, minimum=2) % 2:
            raise ValueError(f"head_dim: rotary positions turn pairs; got {head_dim}, not even")
        self.head_dim = head_dim
        self.base = check_float("base", base, above=1.0)
        self._last: _Angles | None = None

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Turn ``[B, heads, N, D]``; `positions` int64 ``[B, N]``, ``None`` = from 0 on."""
        cos, sin = self._angles(x, positions)
        left, right = x.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)

    def _angles(self, x: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return cosine and sine, ``[B or 1, 1, N, D / 2]``: of the last call if they fit."""
        wanted = (x.shape[2], x.dtype, x.device)
        last = self._last
        # A graph keeps no tensors, nor is a fake one of use later.
        is_kept = positions is None or not torch.compiler.is_compiling()
        is_kept = is_kept and type(x) is Tensor
        if is_kept and last is not None and last.fits(positions, wanted):
            return last.cos, last.sin
        with torch.inference_mode(mode=False):  # they may serve a call that trains
            at = torch.arange(x.shape[2], device=x.device)[None]
            held = None if positions is None else positions.clone()
            at = at if held is None else held
            # In float64: in float32 the angle of a late position is off by more than a weight is.
            channel = torch.arange(0, self.head_dim, 2, dtype=torch.float64, device=x.device)
            angle = at[:, None, :, None] * self.base ** (-channel / self.head_dim)
            cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        if is_kept:
            version = None if positions is None else _version(positions)
            self._last = _Angles(positions, version, held, wanted, cos, sin)
        return cos, sin

    def extra_repr(self) -> str:
        """Show the width and the base."""
        return f"head_dim={self.head_dim}, base={self.base:g}"


def _known_again() -> AbstractContextManager[Any]:
    """Make tensors that count how often they are written to: angles are kept by them."""
    if torch.compiler.is_compiling():
        return nullcontext()
    return torch.inference_mode(mode=False)


def places(mask: Tensor) -> Tensor:
    """Return where each token of bool ``[B, N]`` stands among the real ones, int64 ``[B, N]``.

    From 0 on; padding has the place of the token before it, or 0.
    """
    with _known_again():
        return (mask.cumsum(dim=1) - 1).clamp_min(0)


def places_after(
    lengths: Tensor, size: int, mask: Tensor | None, *, last: int | None = None
) -> Tensor:
    """Return where the tokens of a chunk stand in their sequences, int64 ``[B, size]``.

    Args:
        lengths: tokens that came before, int64 ``[B]``.
        size: tokens of the chunk.
        mask: bool ``[B, size]``, True = a token; ``None`` = all are.
        last: the last place there is, for padding behind it; ``None`` = there is no last.
    """
    with _known_again():
        steps = torch.arange(size, device=lengths.device) if mask is None else places(mask)
        at = lengths[:, None] + steps
        return at if last is None else at.clamp_max(last)


def sinusoidal_table(max_len: int, d_model: int) -> Tensor:
    """Return the positions ``[max_len, d_model]``, float32, computed in float64."""
    wide: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    position = torch.arange(max_len, **wide)[:, None]  # [max_len, 1]
    channel = torch.arange(0, d_model, 2, **wide)  # [ceil(d_model / 2)]
    angle = position * torch.exp(channel * (-math.log(10000.0) / d_model))
    table = torch.empty(max_len, d_model, **wide)
    table[:, 0::2] = torch.sin(angle)
    table[:, 1::2] = torch.cos(angle[:, : d_model // 2])
    return table.float()

"""What the q, k and v of kind ``error`` are drawn from.

An approximation is only as good as the attention it meets: flat or peaked, of full or low rank.
Each distribution is named in a case's ``inputs`` (``gaussian:scale=1``), is a pure function of its
options, the case's shape and the seed, and says how far its logits ``q·k/√D`` deviate. Values
are standard normal in all of them: what differs is where the weights are. Queries and keys of
a trained model are in `suites.error.trained_inputs`.

Sums over D of products of independent q and k have the deviation of the product of their
deviations, times √D; the scaling by ``1/√D`` leaves the product.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from attention.checks import check_float, check_int
from results.schema import Case
from suites.parsing import parse_backend

QKV = tuple[Tensor, Tensor, Tensor]
"""q ``[B, H, N, D]``, k and v ``[B, H_kv, M, D]``; float32, on the CPU."""


class Distribution:
    """Where q, k and v come from. A subclass checks its options in the constructor."""

    name: ClassVar[str]

    def check(self, case: Case) -> None:
        """Check that the options fit the case's shape.

        Raises:
            ValueError: naming the option, what came and what is accepted.
        """

    def unsupported_reasons(self, case: Case) -> list[str]:
        """Say why there are no such inputs for a case that is well formed; empty = there are."""
        return []


class Drawn(Distribution, ABC):
    """What is drawn from a seed."""

    @abstractmethod
    def draw(self, case: Case, generator: torch.Generator) -> QKV:
        """Draw q, k and v in the shape of the case."""


class Gaussian(Drawn):
    """Independent normal queries and keys: ``q, k = s·g``.

    The logits deviate by s²: s is a temperature, 0.3 a nearly uniform row, 2 a peaked one.

    Args:
        scale: s.
    """

    name = "gaussian"

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = check_float("scale", scale, above=0.0)

    def draw(self, case: Case, generator: torch.Generator) -> QKV:
        """Draw them."""
        q, k, v = (_normal(shape, generator) for shape in _shapes(case))
        return q * self.scale, k * self.scale, v


class Peaked(Drawn):
    """A few keys of each query's own dominate it, as where something is looked up.

    Keys are directions, ``k_j = √D·g/|g|``, and a query points at its own: ``q_i = (s/√D)·Σ k_j``
    over m keys j, one of each m-th of the keys that it sees. The logits of those have the mean s
    and the deviation ``s·√((m-1)/D)``, all others 0 and ``s·√(m/D)``. Query heads that share
    a key head look at keys of their own.

    Args:
        num_keys: m.
        strength: s.
    """

    name = "peaked"

    def __init__(self, *, num_keys: int = 2, strength: float = 12.0) -> None:
        self.num_keys = check_int("num_keys", num_keys, minimum=1)
        self.strength = check_float("strength", strength, above=0.0)

    def check(self, case: Case) -> None:
        """Check that there are as many keys."""
        if self.num_keys > case.key_len:
            raise ValueError(
                f"num_keys: expected at most the {case.key_len} keys, got {self.num_keys}"
            )

    def draw(self, case: Case, generator: torch.Generator) -> QKV:
        """Draw keys, then which of them each query points at."""
        query, key, _ = _shapes(case)
        k = torch.nn.functional.normalize(_normal(key, generator), dim=-1)
        shared = k.repeat_interleave(case.num_heads // case.num_kv_heads, dim=1)
        chosen = self.chosen(case, generator)
        q = torch.zeros(query)
        for one in chosen.unbind(dim=-1):
            q += shared.gather(2, one[..., None].expand(query))
        return q * self.strength, k * math.sqrt(case.head_dim), _normal(key, generator)

    def chosen(self, case: Case, generator: torch.Generator) -> Tensor:
        """Draw which keys dominate each query: int64 ``[B, H, N, m]``."""
        shape = (case.batch, case.num_heads, case.seq_len, self.num_keys)
        part = torch.arange(self.num_keys) + torch.rand(shape, generator=generator)
        last = case.key_len - case.seq_len + torch.arange(case.seq_len)
        seen = last + 1 if case.is_causal else torch.full_like(last, case.key_len)
        seen = seen.clamp(min=1)[:, None]
        return (part * seen / self.num_keys).long().clamp_(max=seen - 1)


class LowRank(Drawn):
    """Queries and keys in one R-dimensional subspace of each key head, drawn at random.

    ``q, k = s·(D/R)^¼·g·Uᵀ`` with g of R normal numbers and U ``[D, R]`` orthonormal. The logits
    deviate by s², as those of `Gaussian`: what differs is their rank alone.

    Args:
        rank: R, at most D.
        scale: s.
    """

    name = "low_rank"

    def __init__(self, *, rank: int = 8, scale: float = 1.0) -> None:
        self.rank = check_int("rank", rank, minimum=1)
        self.scale = check_float("scale", scale, above=0.0)

    def check(self, case: Case) -> None:
        """Check that a head is as wide."""
        if self.rank > case.head_dim:
            raise ValueError(
                f"rank: expected at most the head_dim of {case.head_dim}, got {self.rank}"
            )

    def draw(self, case: Case, generator: torch.Generator) -> QKV:
        """Draw the subspaces, then places in them."""
        query, key, _ = _shapes(case)
        square = (case.batch, case.num_kv_heads, case.head_dim, case.head_dim)
        basis = torch.linalg.qr(_normal(square, generator)).Q[..., : self.rank].mT  # [.., R, D]
        factor = self.scale * (case.head_dim / self.rank) ** 0.25
        shared = basis.repeat_interleave(case.num_heads // case.num_kv_heads, dim=1)
        q = _normal((*query[:-1], self.rank), generator) @ shared
        k = _normal((*key[:-1], self.rank), generator) @ basis
        return q * factor, k * factor, _normal(key, generator)


class HeavyTailed(Drawn):
    """Queries and keys of Student's t: single numbers far above the others, as in trained models.

    ``q, k = s·t·√((ν-2)/ν)`` with t of ν degrees of freedom, so that the variance is s² and the
    logits deviate by s², as those of `Gaussian`. t is drawn as ``√(ν(u^(-2/ν) - 1))·cos(2πw)``
    with uniform u and w (Bailey 1994, Mathematics of Computation 62).

    Args:
        df: ν, above 2: below there is no variance.
        scale: s.
    """

    name = "heavy_tailed"

    def __init__(self, *, df: float = 3.0, scale: float = 1.0) -> None:
        self.df = check_float("df", df, above=2.0)
        self.scale = check_float("scale", scale, above=0.0)

    def draw(self, case: Case, generator: torch.Generator) -> QKV:
        """Draw them."""
        query, key, value = _shapes(case)
        q, k = (self._student(shape, generator) for shape in (query, key))
        return q, k, _normal(value, generator)

    def _student(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        u, w = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        radius = (self.df * ((1 - u) ** (-2 / self.df) - 1)).sqrt()  # 1 - u is never 0
        t = radius * torch.cos(2 * math.pi * w)
        return (t * (self.scale * math.sqrt((self.df - 2) / self.df))).float()


DRAWN: Mapping[str, type[Drawn]] = {
    kind.name: kind for kind in (Gaussian, Peaked, LowRank, HeavyTailed)
}
"""What is drawn, by name."""


def build_distribution(text: str, kinds: Mapping[str, type[Distribution]]) -> Distribution:
    """Read a case's ``inputs``.

    Args:
        text: ``NAME`` or ``NAME:key=value,…``.
        kinds: what there is, by name.

    Raises:
        ValueError: if there is no such distribution, or a value is out of range.
        TypeError: if it has no such option, or a value is of the wrong type.
    """
    named = parse_backend(text)
    if named.name not in kinds:
        raise ValueError(f"inputs: expected one of {', '.join(kinds)}, got {named.name!r}")
    kind = kinds[named.name]
    accepted = list(inspect.signature(kind).parameters)
    for option in named.options:
        if option not in accepted:
            raise TypeError(
                f"inputs: {named.name} has no option {option!r}; it takes {', '.join(accepted)}"
            )
    try:
        return kind(**named.options)
    except (TypeError, ValueError) as error:
        raise type(error)(f"inputs: {named.name}: {error}") from None


def _shapes(case: Case) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    query = (case.batch, case.num_heads, case.seq_len, case.head_dim)
    key = (case.batch, case.num_kv_heads, case.key_len, case.head_dim)
    return query, key, key


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)

"""What every check has: the backend under test, its inputs, and how a failure is told."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attention import registry
from attention.base import Attention
from attention.functional import relative_l2
from attention.problem import CallInput

LENGTHS = (1, 2, 63, 64, 65, 100, 257)
HEADS, DIM, BATCH = 4, 16, 2
F64_BUDGET = 1e-9


class Violation(AssertionError):
    """The contract is broken; `shown` is Python that shows it, behind what `Bench.found` writes.

    It does not fail by itself: the check does, which is repeated behind it.
    """

    def __init__(self, message: str, shown: str = "") -> None:
        super().__init__(message)
        self.shown = shown


class NotAsked(Exception):
    """The backend does not declare what this check is about."""


@dataclass(frozen=True)
class Inputs:
    """One call: tensors, and what the call asks for."""

    q: Tensor
    k: Tensor
    v: Tensor
    is_causal: bool = False
    key_padding_mask: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    """The call's further inputs: numbers of each token."""

    @property
    def asks(self) -> dict[str, Any]:
        """The keyword arguments of the call."""
        mask = self.key_padding_mask
        return {"is_causal": self.is_causal, "key_padding_mask": mask, **self.extra}

    @property
    def bare(self) -> dict[str, Any]:
        """Likewise, without a mask."""
        return {"is_causal": self.is_causal, **self.extra}

    def extra_at(self, where: slice, rows: slice = slice(None)) -> dict[str, Tensor]:
        """The further inputs of some tokens, of some sequences."""
        return {name: x[rows, :, where] for name, x in self.extra.items()}

    def through(self, function: Callable[..., Any]) -> Tensor:
        """Call a module, or its reference."""
        out: Tensor = function(self.q, self.k, self.v, **self.asks)
        return out

    def leaves(self) -> list[Tensor]:
        """Return q, k and v as tensors that gradients are taken of."""
        return [x.detach().clone().requires_grad_() for x in (self.q, self.k, self.v)]

    def to(self, dtype: torch.dtype) -> Inputs:
        """Convert q, k and v."""
        return Inputs(
            self.q.to(dtype), self.k.to(dtype), self.v.to(dtype), self.is_causal,
            self.key_padding_mask, {name: x.to(dtype) for name, x in self.extra.items()},
        )  # fmt: skip

    @property
    def real(self) -> Tensor:
        """Which outputs are specified, ``[B, 1, N, 1]``: in self-attention, real queries."""
        if self.key_padding_mask is None or self.q.shape[2] != self.k.shape[2]:
            return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.q.device)
        return self.key_padding_mask[:, None, :, None]


class Bench:
    """A backend under test: builds it, draws inputs, writes the code that shows a failure."""

    def __init__(self, cls: type[Attention], options: dict[str, Any], device: str) -> None:
        self.cls, self.options, self.device = cls, options, device

    @property
    def causals(self) -> tuple[bool, ...]:
        """What ``is_causal`` may be."""
        supports = self.cls.supports
        return (False,) * supports.bidirectional + (True,) * supports.causal

    @property
    def paddings(self) -> tuple[bool, ...]:
        """Whether there may be a mask."""
        return (False, True) if self.cls.supports.key_padding else (False,)

    def build(
        self,
        key_len: int,
        *,
        heads: int = HEADS,
        dim: int = DIM,
        rng: int = 0,
        device: str | None = None,
        **more: Any,
    ) -> Attention:
        """Build a module for up to `key_len` keys; torch's generator starts from `rng`."""
        torch.manual_seed(rng)
        accepted = self.cls.options()
        given: dict[str, Any] = {"num_heads": heads, "head_dim": dim, **self.options, **more}
        for name, value in (("seq_len", key_len), ("seed", 0)):
            if name in accepted:
                given.setdefault(name, value)
        return self.cls(**given).to(device or self.device)

    def inputs(
        self,
        seq_len: int,
        key_len: int | None = None,
        *,
        is_causal: bool | None = None,
        padding: bool = False,
        kv_heads: int = HEADS,
        batch: int = BATCH,
        dtype: torch.dtype = torch.float64,
        heads: int = HEADS,
        dim: int = DIM,
    ) -> Inputs:
        """Draw a call; with `padding` row 0 is whole, and later rows end early.

        With `is_causal` ``None`` it is bidirectional where the backend serves that.
        """
        key_len = seq_len if key_len is None else key_len
        generator = torch.Generator().manual_seed(seq_len * 1009 + key_len)
        shapes = [(heads, seq_len), (kv_heads, key_len), (kv_heads, key_len)]
        q, k, v = (
            torch.randn(batch, h, n, dim, generator=generator, dtype=torch.float64)
            .to(dtype)
            .to(self.device)
            for h, n in shapes
        )
        mask = None
        if padding:
            ends = torch.arange(batch, 0, -1) * key_len // batch
            mask = (torch.arange(key_len) < ends[:, None]).to(self.device)
        extra = {
            name: self.draw(spec, (batch, heads, seq_len, dim), generator).to(q)
            for name, spec in self.token_inputs().items()
        }
        causal = self.causals[0] if is_causal is None else is_causal
        return Inputs(q, k, v, causal, mask, extra)

    def token_inputs(self) -> dict[str, CallInput]:
        """Return the numbers of each token that the backend takes with these options."""
        taken = self.build(1).taken_inputs()
        return {name: spec for name, spec in taken.items() if spec.is_of_tokens}

    def draw(self, spec: CallInput, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw an input of the tokens ``[B, H, N, D]`` of q."""
        if spec.draw is None:
            raise Violation("call_inputs: numbers of each token need a function draw")
        return spec.draw(spec.shape(*shape), generator)

    def calls(self, lengths: tuple[int, ...] = LENGTHS) -> Iterator[Inputs]:
        """Walk the calls that the declaration promises to serve."""
        for n, causal, padding in itertools.product(lengths, self.causals, self.paddings):
            yield self.inputs(n, is_causal=causal, padding=padding)
        for causal in self.causals:
            yield self.inputs(lengths[-1], is_causal=causal, kv_heads=HEADS // 2)
            if self.cls.supports.cross:
                yield self.inputs(33, 50, is_causal=causal)
                yield self.inputs(50, 33, is_causal=causal)

    def found(self) -> str:
        """Write Python that finds the backend, as ``cls``; of a file's it imports the file."""
        cls = self.cls
        if registry.is_registered(cls):
            file = registry.file_of(cls)
            load = f"attention.registry.load_file({str(file)!r})\n" if file else ""
            return f"{load}cls = attention.get({cls.name!r})"
        return f"from {cls.__module__} import {cls.__qualname__} as cls"

    def show(self, call: Inputs, then: str) -> str:
        """Write Python that makes a module and repeats a call."""
        options = "".join(f", {k}={v!r}" for k, v in self.options.items())
        extra = f", seq_len={call.k.shape[2]}" if "seq_len" in self.cls.options() else ""
        mask = "None"
        if call.key_padding_mask is not None:
            mask = f"torch.tensor({call.key_padding_mask.int().tolist()}).bool()"
            if call.k.shape[2] > 16:
                ends = call.key_padding_mask.sum(1).tolist()
                mask = f"(torch.arange({call.k.shape[2]}) < torch.tensor({ends})[:, None])"
        place = "" if self.device == "cpu" else f", device={self.device!r}"
        kind = f"dtype={call.q.dtype}{place}"
        mask += f".to({self.device!r})" if place and mask != "None" else ""
        named = "".join(f", {name}={name}" for name in call.extra)
        return (
            f"m = cls(num_heads={call.q.shape[1]}, head_dim={call.q.shape[3]}{extra}{options})"
            f".to({kind}).eval()\n"
            f"q = torch.randn({tuple(call.q.shape)}, {kind})\n"
            f"k = torch.randn({tuple(call.k.shape)}, {kind})\n"
            f"v = torch.randn({tuple(call.v.shape)}, {kind})\n"
            f"{self._shown_extra(call, kind)}"
            f"asks = dict(is_causal={call.is_causal}, key_padding_mask={mask}{named})\n{then}"
        )

    def _shown_extra(self, call: Inputs, kind: str) -> str:
        """Write Python that draws the further inputs."""
        return "".join(
            f"{name} = m.taken_inputs()[{name!r}].draw({tuple(x.shape)}, torch.Generator())"
            f".to({kind})\n"
            for name, x in call.extra.items()
        )


def assert_matches(
    name: str, actual: Tensor, oracle: Tensor, budget: float, how: str = ""
) -> None:
    """Raise `Violation` unless `actual` is within `budget` (relative L2) of `oracle`."""
    if actual.shape != oracle.shape:
        raise Violation(
            f"{name}: expected shape {tuple(oracle.shape)}, got {tuple(actual.shape)}", how
        )
    error = relative_l2(actual, oracle)
    if not error <= budget:  # NaN fails
        raise Violation(f"{name}: relative L2 error {error:.2e}, budget {budget:.1e}", how)


def described(call: Inputs) -> str:
    """Describe a call in a few words."""
    return (
        f"N={call.q.shape[2]}, M={call.k.shape[2]}, H_kv={call.k.shape[1]}, "
        f"is_causal={call.is_causal}, padding={call.key_padding_mask is not None}"
    )


def drawn(bench: Bench, like: Tensor) -> Tensor:
    """Draw numbers of a tensor's shape, always the same."""
    generator = torch.Generator().manual_seed(like.numel())
    return torch.randn(like.shape, dtype=torch.float64, generator=generator).to(bench.device)


def assert_gradient(name: str, actual: Tensor, oracle: Tensor, how: str) -> None:
    """Raise `Violation` unless a gradient is the oracle's; the right one may be zero."""
    scale = oracle.detach().norm() + 1e-3 * math.sqrt(oracle.numel())
    error = float((actual.detach() - oracle.detach()).norm() / scale)
    if not error <= 1e-7:  # NaN fails
        raise Violation(f"{name}: relative L2 error {error:.2e}", how)

"""Every registered backend, present and future, against the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

import attention
from attention.base import Attention
from attention.problem import Cost, Mode, Problem, Supports
from attention.testing import CHECKS, check


def checks(*left_out: str) -> list[Any]:
    """Return the contract's checks without a clock; that of memory runs at 4,096 tokens."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "hidden_memory"))
        for name in CHECKS
        if name not in ("time_exponent", *left_out)
    ]


@pytest.mark.parametrize("name", attention.names())
@pytest.mark.parametrize("what", checks())
def test_backend_keeps_the_contract(name: str, what: str) -> None:
    (finding,) = check(name, only=what)
    if finding.status == "skipped":
        pytest.skip(finding.message)
    assert finding.status == "passed", f"{finding.message}\n{finding.how}"


VARIANTS = [
    ("longformer", {"window": 8}),
    ("longformer", {"window": 5, "dilation": 3}),
    ("longformer", {"window": 4, "dilation": [1, 1, 2, 5]}),
    ("longformer", {"window": 0}),
    ("bigbird", {"block_size": 8, "num_random_blocks": 2}),
    ("bigbird", {"block_size": 7, "num_random_blocks": 0}),
    ("bigbird", {"block_size": 16, "num_random_blocks": 5, "num_global_tokens": 3}),
    ("bigbird", {"block_size": 1, "num_random_blocks": 3}),
    ("linformer", {"rank": 16, "sharing": "none"}),
    ("linformer", {"rank": 16, "sharing": "key_value"}),
    ("linformer", {"rank": 16, "sharing": "layer"}),
    ("linformer", {"rank": 16, "method": "mean_pool"}),
    ("performer", {"num_features": 33}),
    ("performer", {"num_features": 33, "orthogonal": False}),
    ("performer", {"num_features": 16, "features": "relu"}),
    ("performer", {"num_features": 33, "kernel": "chunked"}),
    ("performer", {"num_features": 16, "features": "relu", "kernel": "chunked"}),
    ("sdpa", {"kernel": "math"}),
    ("sdpa", {"kernel": "flash"}),
    ("sdpa", {"scale": 0.3}),
    ("gated_linear", {"decay": "retnet"}),
    ("gated_linear", {"decay": "lightning"}),
    ("full", {"sink": True}),
    ("sdpa", {"sink": True}),
    ("longformer", {"window": 8, "sink": True}),
    ("longformer", {"window": 4, "dilation": [1, 1, 2, 5], "sink": True}),
]


HOLDING: list[tuple[str, dict[str, object]]] = [
    ("longformer", {"window": 4, "dilation": [1, 1, 2, 5]}),
    ("bigbird", {"block_size": 1, "num_random_blocks": 3}),
    ("linformer", {"rank": 16, "method": "mean_pool"}),
    ("performer", {"num_features": 33, "kernel": "chunked"}),
    ("sdpa", {"kernel": "flash"}),
    ("sdpa", {"sink": True}),
    ("longformer", {"window": 8, "sink": True}),
]
"""Variants whose memory is looked at too, in calls of 4,096 tokens: one for each way through the
code. The math kernel's is quadratic, as its name says."""


@pytest.mark.parametrize("what", checks("ops_exponent", "exactness"))
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda x: str(x))
def test_options_keep_the_contract(name: str, options: dict[str, object], what: str) -> None:
    if what == "hidden_memory" and (name, options) not in HOLDING:
        pytest.skip("one variant for each way through the code")
    (finding,) = check(name, options=dict(options), only=what)
    assert finding.status != "failed", f"{finding.message}\n{finding.how}"


LONG = [
    ("longformer", {"window": 8}),
    ("longformer", {"window": 4, "dilation": [1, 1, 2, 5]}),
    ("bigbird", {"block_size": 8, "num_random_blocks": 2}),
    ("bigbird", {"block_size": 7, "num_random_blocks": 0}),
    ("bigbird", {"block_size": 1, "num_random_blocks": 3, "num_global_tokens": 3}),
    ("linformer", {"rank": 16, "sharing": "none"}),
    ("linformer", {"rank": 16, "sharing": "layer"}),
    ("performer", {"num_features": 33}),
]


@pytest.mark.parametrize("what", checks("ops_exponent", "exactness", "hidden_memory"))
@pytest.mark.parametrize(("name", "options"), LONG, ids=lambda x: str(x))
def test_what_serves_long_sequences_keeps_the_contract_on_short_ones(
    name: str, options: dict[str, object], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The contract's sequences are short: all else here goes the way of those.
    monkeypatch.setattr("attention.kernels.fold.SHORT_ROW", -1)
    monkeypatch.setattr("attention.backends.bigbird.grid.SMALL_LENGTH", -1)
    test_options_keep_the_contract(name, options, what)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("length", "kernel"), [(256, "masked_square"), (257, "tiled_blocks")])
def test_bigbird_says_which_way_it_went(length: int, kernel: str, is_causal: bool) -> None:
    module = attention.build("bigbird", num_heads=2, head_dim=8, block_size=8)
    q = torch.randn(1, 2, length, 8)
    module(q, q, q, is_causal=is_causal)
    assert module.kernel.removesuffix("+onednn") == kernel
    mask = torch.ones(1, length, dtype=torch.bool)
    mask[:, :3] = False  # the real tokens are few enough now
    module(q, q, q, is_causal=is_causal, key_padding_mask=mask)
    assert module.kernel.removesuffix("+onednn") == "masked_square"


@pytest.mark.gpu
@pytest.mark.parametrize("name", attention.names())
def test_backend_keeps_the_contract_on_cuda(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    # The contract's oracles run in float64, which FlexAttention does not: test_cuda_kernels.py.
    options = {"kernel": "tiled"} if name in ("longformer", "bigbird") else {}
    failed = [f for f in check(name, options=options, device="cuda") if f.status == "failed"]
    assert not failed, "\n".join(f"{f.check}: {f.message}\n{f.how}" for f in failed)


# -- the contract itself must be able to fail -----------------------------------------------------


class Base(attention.FullAttention):
    """Exact attention that each class below breaks in one way."""

    name = "broken"


class LeaksTheFuture(Base):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        out = super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)
        return out + 1e-6 * v.mean(dim=2, keepdim=True) if is_causal else out


class IgnoresPadding(Base):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        return super().attend(q, k, v, is_causal=is_causal, key_padding_mask=None)


class MixesTheBatch(Base):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        out = super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)
        return out + 1e-3 * out.mean(dim=0, keepdim=True)


class WrongDtype(Base):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        return (
            super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask).float()
        )


class CutsTheGradient(Base):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        return super().attend(
            q, k.detach(), v, is_causal=is_causal, key_padding_mask=key_padding_mask
        )


class IsRandom(Base):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        out = super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)
        return out + 1e-15 * torch.rand_like(out)


class ClaimsLinearMemory(Base):
    memory_exponent = 1.0


class ClaimsLinearTime(Base):
    time_exponent = 1.0


class Undercounts(Base):
    def cost(self, problem: Problem, mode: Mode) -> Cost:
        honest = super().cost(problem, mode)
        return Cost(
            honest.pattern_ops // 2, honest.executed_ops // 2, honest.exponentials, honest.bytes
        )


class ServesWhatItRefuses(Base):
    supports = Supports(causal=True, cross=False, key_padding=True)

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        return []


class Inexact(Base):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        return 1.001 * super().attend(
            q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask
        )

    def reference(self, *args: object, **kwargs: object) -> Tensor:
        return 1.001 * super().reference(*args, **kwargs)  # type: ignore[arg-type]


class RaisesAtOddLengths(Base):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        if q.shape[2] % 2:
            raise RuntimeError("must be a multiple of 2")
        return super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)


class ForgetsItsDraw(Base):
    """Holds what it drew as an attribute, which no state dict has."""

    def __init__(self, *, num_heads: int, head_dim: int) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim)
        self.factor = torch.rand(num_heads, 1, 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        out = super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)
        return out * self.factor.to(out)


class DrawsAtTheCall(Base):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        torch.rand(1)
        return super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)


class _OneOrder(torch.autograd.Function):
    """A product whose backward pass reads the factor without having saved it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factor: Tensor) -> Tensor:
        return x * factor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


class _Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


class DropsSecondDerivatives(Base):
    """The squared output: its backward pass is no graph, and a constant gradient hides that."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        out = super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)
        return _Squared.apply(out)

    def reference(self, *args: object, **kwargs: object) -> Tensor:
        return super().reference(*args, **kwargs) ** 2  # type: ignore[arg-type]


class SavesNothing(Base):
    """Reads a buffer in its backward pass that it did not save."""

    def __init__(self, *, num_heads: int, head_dim: int) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim)
        self.register_buffer("factor", torch.rand(()))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        out = super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)
        return _OneOrder.apply(out, self.factor)


class _NotForFunctions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 1.0


class RefusesFunctions(Base):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
               key_padding_mask: Tensor | None) -> Tensor:  # fmt: skip
        out = super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)
        return _NotForFunctions.apply(out)


class PassesPaddingOn(Base):
    """Weighs padding with zero, which times NaN is NaN."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **asks: Any) -> Tensor:
        out = super().forward(q, k, v, **asks)
        return out + 0.0 * v.mean(dim=(2, 3), keepdim=True)


BROKEN: list[Any] = [
    (ForgetsItsDraw, "persistence"),
    (DrawsAtTheCall, "persistence"),
    (DropsSecondDerivatives, "second_derivative"),
    (SavesNothing, "in_place"),
    (SavesNothing, "meta"),
    (RefusesFunctions, "functional"),
    (PassesPaddingOn, "padding_content"),
    (LeaksTheFuture, "future"),
    (IgnoresPadding, "padding"),
    (IgnoresPadding, "reference"),
    (MixesTheBatch, "batch"),
    (WrongDtype, "shapes"),
    (WrongDtype, "dtypes"),
    (CutsTheGradient, "gradients"),
    (IsRandom, "determinism"),
    pytest.param(ClaimsLinearMemory, "hidden_memory", marks=pytest.mark.slow),  # computes for 3 s
    (ClaimsLinearTime, "ops_exponent"),
    (Undercounts, "operations"),
    (ServesWhatItRefuses, "refusals"),
    (Inexact, "exactness"),
    (RaisesAtOddLengths, "shapes"),
]


@pytest.mark.parametrize(("cls", "what"), BROKEN, ids=lambda x: getattr(x, "__name__", x))
def test_contract_finds_what_is_broken(cls: type[Attention], what: str) -> None:
    (finding,) = check(cls, only=what)
    assert finding.status == "failed"
    assert finding.message
    with pytest.raises(Exception) as raised:  # noqa: PT011  # whatever the check found
        exec(finding.how, {})
    if cls is not IsRandom and what != "meta":  # memory that nobody wrote to has any value
        assert finding.message.endswith(str(raised.value))


def test_check_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"no backend 'performr' \(did you mean 'performer'"):
        check("performr")
    with pytest.raises(ValueError, match="only: no check 'speed'"):
        check("sdpa", only="speed")
    with pytest.raises(TypeError, match="backend: expected a name or a subclass"):
        check(int)  # type: ignore[arg-type]

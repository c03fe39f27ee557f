"""The contract as code: ``check(backend)`` says what a backend does not keep.

Used by the project's tests, by ``attnbench check``, and by third parties on their own backends:

    >>> from attention.testing import check
    >>> [f for f in check("sdpa") if f.status == "failed"]
    []

In pytest, a test a check: ``test_contract = attention.testing.contract("my_backend")``.

Every check is a function of a `Bench` that raises `Violation` or returns; the table `CHECKS` holds
them in order. Oracles run in float64.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import math
import pickle
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from attention.base import Attention, Cost, Mode, Problem, UnsupportedError
from attention.functional import error_budget, exact_attention_rows, relative_l2
from attention.registry import get

LENGTHS = (1, 2, 63, 64, 65, 100, 257)
HEADS, DIM, BATCH = 4, 16, 2
FAMILIES = ("dense", "sparse", "low_rank", "kernel", "recurrent")
F64_BUDGET = 1e-9


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        status: ``passed``, ``failed``, or ``skipped`` (not declared, so not asked).
        message: what was wrong, or why it was skipped.
        how: Python that shows a failure.
    """

    check: str
    status: Literal["passed", "failed", "skipped"]
    message: str
    how: str


class Violation(AssertionError):
    """The contract is broken; `how` is Python that shows it."""

    def __init__(self, message: str, how: str) -> None:
        super().__init__(message)
        self.how = how


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

    @property
    def asks(self) -> dict[str, Any]:
        """The keyword arguments of the call."""
        return {"is_causal": self.is_causal, "key_padding_mask": self.key_padding_mask}

    def to(self, dtype: torch.dtype) -> Inputs:
        """Convert q, k and v."""
        return Inputs(
            self.q.to(dtype), self.k.to(dtype), self.v.to(dtype), self.is_causal,
            self.key_padding_mask,
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
        is_causal: bool = False,
        padding: bool = False,
        kv_heads: int = HEADS,
        batch: int = BATCH,
        dtype: torch.dtype = torch.float64,
        heads: int = HEADS,
        dim: int = DIM,
    ) -> Inputs:
        """Draw a call; with `padding` row 0 is whole, and later rows end early."""
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
        return Inputs(q, k, v, is_causal, mask)

    def calls(self, lengths: tuple[int, ...] = LENGTHS) -> Iterator[Inputs]:
        """Walk the calls that the declaration promises to serve."""
        supports = self.cls.supports
        causals = (False, True) if supports.causal else (False,)
        paddings = (False, True) if supports.key_padding else (False,)
        for n, causal, padding in itertools.product(lengths, causals, paddings):
            yield self.inputs(n, is_causal=causal, padding=padding)
        for causal in causals:
            yield self.inputs(lengths[-1], is_causal=causal, kv_heads=HEADS // 2)
            if supports.cross:
                yield self.inputs(33, 50, is_causal=causal)
                yield self.inputs(50, 33, is_causal=causal)

    def show(self, call: Inputs, then: str) -> str:
        """Write Python that repeats a call."""
        options = "".join(f", {k}={v!r}" for k, v in self.options.items())
        extra = f", seq_len={call.k.shape[2]}" if "seq_len" in self.cls.options() else ""
        mask = "None"
        if call.key_padding_mask is not None:
            mask = f"torch.tensor({call.key_padding_mask.int().tolist()}).bool()"
            if call.k.shape[2] > 16:
                ends = call.key_padding_mask.sum(1).tolist()
                mask = f"torch.arange({call.k.shape[2]}) < torch.tensor({ends})[:, None]"
        dtype = call.q.dtype
        return (
            "import torch, attention\n"
            f"m = attention.get({self.cls.name!r})(num_heads={call.q.shape[1]}, "
            f"head_dim={call.q.shape[3]}{extra}{options})\n"
            f"q = torch.randn({tuple(call.q.shape)}, dtype={dtype})\n"
            f"k = torch.randn({tuple(call.k.shape)}, dtype={dtype})\n"
            f"v = torch.randn({tuple(call.v.shape)}, dtype={dtype})\n"
            f"asks = dict(is_causal={call.is_causal}, key_padding_mask={mask})\n{then}"
        )


def check(
    backend: str | type[Attention],
    *,
    options: dict[str, Any] | None = None,
    device: str = "cpu",
    only: str | None = None,
    measure: bool = False,
) -> list[Finding]:
    """Hold a backend against the contract.

    Args:
        backend: a registered name, or a class.
        options: for its constructor, beside num_heads, head_dim, seq_len and seed.
        device: where to run.
        only: the name of one check; ``None`` = all.
        measure: also time the backend and hold the exponent against the declared one. Off by
            default: time depends on what else the machine does.

    Returns:
        one finding a check, in the order of `CHECKS`.

    Raises:
        ValueError: if `backend` or `only` is unknown.
        TypeError: if `backend` is neither a name nor a subclass of Attention.
    """
    cls = get(backend) if isinstance(backend, str) else backend
    if not (inspect.isclass(cls) and issubclass(cls, Attention)):
        raise TypeError(f"backend: expected a name or a subclass of Attention, got {cls!r}")
    if only is not None and only not in CHECKS:
        raise ValueError(f"only: no check {only!r}; there are {', '.join(CHECKS)}")
    names = [only] if only else [n for n in CHECKS if measure or n != "time_exponent"]
    if reasons := cls.unavailable_reasons(device):
        return [Finding(name, "skipped", "; ".join(reasons), "") for name in names]
    return [_run(name, Bench(cls, dict(options or {}), device)) for name in names]


def _run(name: str, bench: Bench) -> Finding:
    try:
        CHECKS[name](bench)
    except NotAsked as reason:
        return Finding(name, "skipped", str(reason), "")
    except Violation as violation:
        return Finding(name, "failed", str(violation), violation.how)
    except Exception as error:  # the backend's own fault: it is what the check found
        how = (
            f"from attention.testing import Bench, CHECKS\nimport attention\n"
            f"CHECKS[{name!r}](Bench(attention.get({bench.cls.name!r}), {bench.options!r}, "
            f"{bench.device!r}))"
        )
        return Finding(name, "failed", f"{type(error).__name__}: {error}", how)
    return Finding(name, "passed", "", "")


def contract(
    backend: str | type[Attention],
    *,
    options: dict[str, Any] | None = None,
    device: str = "cpu",
    measure: bool = False,
) -> Callable[[str], None]:
    """Return the contract as a pytest test, a case a check.

    In a test file: ``test_contract = contract("my_backend")``. A failure comes with Python that
    shows it again; what the backend does not declare is skipped. Needs pytest.

    Args:
        backend: as of `check`, and so the others.
        options: for its constructor.
        device: where to run.
        measure: also hold the exponent of time against the declared one.
    """
    import pytest

    names = [n for n in CHECKS if measure or n != "time_exponent"]

    @pytest.mark.parametrize("name", names)
    def test(name: str) -> None:
        (found,) = check(backend, options=options, device=device, only=name)
        if found.status == "skipped":
            pytest.skip(found.message)
        if found.status == "failed":
            pytest.fail(f"{found.message}\n\n{found.how}", pytrace=False)

    return test


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


def _describe(call: Inputs) -> str:
    return (
        f"N={call.q.shape[2]}, M={call.k.shape[2]}, H_kv={call.k.shape[1]}, "
        f"is_causal={call.is_causal}, padding={call.key_padding_mask is not None}"
    )


def _declaration(bench: Bench) -> None:
    cls, how = bench.cls, f"import attention; attention.describe({bench.cls.name!r})"
    for name in ("family", "exact", "supports", "time_exponent", "memory_exponent"):
        if not hasattr(cls, name):
            raise Violation(f"{name}: not declared on the class", how)
    if cls.family not in FAMILIES:
        raise Violation(f"family: expected one of {', '.join(FAMILIES)}, got {cls.family!r}", how)
    for name, parameter in cls.options().items():
        if parameter.kind != inspect.Parameter.KEYWORD_ONLY:
            raise Violation(f"{name}: constructor arguments must be keyword-only", how)
    if not (inspect.getmodule(cls).__doc__ or "").strip():
        raise Violation("its module needs a docstring: paper, equation, time and memory", how)


def _shapes(bench: Bench) -> None:
    for call in bench.calls():
        out = bench.build(call.k.shape[2]).to(torch.float64)(call.q, call.k, call.v, **call.asks)
        how = bench.show(call, "print(m(q, k, v, **asks).shape, q.shape)")
        if (out.shape, out.dtype, out.device) != (call.q.shape, call.q.dtype, call.q.device):
            raise Violation(
                f"output is {tuple(out.shape)} {out.dtype} on {out.device}, expected that of q: "
                f"{tuple(call.q.shape)} {call.q.dtype} on {call.q.device} ({_describe(call)})",
                how,
            )
        if not bool(out.isfinite().all()):
            raise Violation(f"output is not finite ({_describe(call)})", how)


def _dtypes(bench: Bench) -> None:
    for dtype in bench.cls.supports.dtypes[bench.device]:
        causals = (False, True) if bench.cls.supports.causal else (False,)
        for causal in causals:
            wide = bench.inputs(100, is_causal=causal).to(dtype).to(torch.float64)
            call = wide.to(dtype)
            module = bench.build(100).eval()
            out = module(call.q, call.k, call.v, **call.asks)
            how = bench.show(call, "print(m(q, k, v, **asks), m.reference(q, k, v, **asks))")
            if out.dtype != dtype:
                raise Violation(f"dtype: {dtype} in, {out.dtype} out", how)
            oracle = module.reference(wide.q, wide.k, wide.v, **call.asks)
            plain = call.to(torch.promote_types(dtype, torch.float32))
            own = module.reference(plain.q, plain.k, plain.v, **call.asks)
            budget = error_budget(dtype, relative_l2(own, oracle))
            assert_matches(f"{dtype} ({_describe(call)})", out, oracle, budget, how)


def _twin(bench: Bench) -> None:
    for call in bench.calls():
        module = bench.build(call.k.shape[2]).eval()
        then = "print((m(q, k, v, **asks) - m.reference(q, k, v, **asks)).norm())"
        how = bench.show(call, then)
        expected = module.reference(call.q, call.k, call.v, **call.asks)
        for name, inputs in (("", call), (", strided", _strided(call))):
            out = module(inputs.q, inputs.k, inputs.v, **inputs.asks)
            assert_matches(
                f"output against reference ({_describe(call)}{name})",
                out * call.real,
                expected * call.real,
                F64_BUDGET,
                how,
            )
        rows = torch.tensor([0, call.q.shape[2] - 1], device=call.q.device)
        some = module.reference(call.q, call.k, call.v, **call.asks, rows=rows)
        assert_matches(
            f"reference(rows=…) against its own rows ({_describe(call)})",
            some,
            expected[:, :, rows],
            F64_BUDGET,
            how,
        )


def _strided(call: Inputs) -> Inputs:
    """Lay q, k and v out as a multi-head layer's projections do: ``[B, N, H, D]`` in memory."""
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (call.q, call.k, call.v))
    return Inputs(q, k, v, call.is_causal, call.key_padding_mask)


def _gradients(bench: Bench) -> None:
    for call in bench.calls():
        module = bench.build(call.k.shape[2]).to(torch.float64)
        leaves = [x.detach().clone().requires_grad_() for x in (call.q, call.k, call.v)]
        leaves += [p for p in module.parameters() if p.requires_grad]
        weight = torch.randn(
            call.q.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        ).to(bench.device)
        q, k, v = leaves[:3]
        grads = [
            torch.autograd.grad(
                function(q, k, v, **call.asks), leaves, weight * call.real, allow_unused=True
            )
            for function in (module, module.reference)
        ]
        names = ["q", "k", "v", *(n for n, p in module.named_parameters() if p.requires_grad)]
        for name, actual, oracle in zip(names, *grads, strict=True):
            how = bench.show(
                call,
                "q.requires_grad_(); k.requires_grad_(); v.requires_grad_()\n"
                "m(q, k, v, **asks).sum().backward(); print(q.grad, k.grad, v.grad)",
            )
            if (actual is None) != (oracle is None):
                raise Violation(
                    f"gradient of {name}: {'none' if actual is None else 'one'}, the reference "
                    f"has {'none' if oracle is None else 'one'} ({_describe(call)})",
                    how,
                )
            if actual is None or oracle is None:
                continue
            _assert_gradient(f"gradient of {name} ({_describe(call)})", actual, oracle, how)


def _future(bench: Bench) -> None:
    if not bench.cls.supports.causal:
        raise NotAsked("causal is not declared")
    for n, cut in ((65, 40), (257, 100), (257, 200)):
        call = bench.inputs(n, is_causal=True)
        module = bench.build(n).eval()
        before = module(call.q, call.k, call.v, is_causal=True)[:, :, :cut]
        k, v = call.k.clone(), call.v.clone()
        k[:, :, cut:] = torch.randn_like(k[:, :, cut:]) * 3
        v[:, :, cut:] = torch.randn_like(v[:, :, cut:]) * 3
        after = module(call.q, k, v, is_causal=True)[:, :, :cut]
        how = bench.show(
            call,
            f"a = m(q, k, v, **asks)[:, :, :{cut}]; k[:, :, {cut}:] = 3; v[:, :, {cut}:] = 3\n"
            f"print((m(q, k, v, **asks)[:, :, :{cut}] - a).abs().max())",
        )
        assert_matches(
            f"future leak by value: N={n}, keys from {cut} on changed", after, before, 1e-12, how
        )
        k, v = (x.detach().clone().requires_grad_() for x in (call.k, call.v))
        module(call.q, k, v, is_causal=True)[:, :, :cut].sum().backward()
        for name, x in (("k", k), ("v", v)):
            assert x.grad is not None
            leak = float(x.grad[:, :, cut:].abs().max())
            if leak > 0:
                raise Violation(
                    f"future leak by gradient: N={n}, outputs before {cut} have gradient "
                    f"{leak:.1e} at a later {name}",
                    how,
                )


def _padding(bench: Bench) -> None:
    if not bench.cls.supports.key_padding:
        raise NotAsked("key_padding is not declared")
    for n, causal in itertools.product(LENGTHS[1:], (False, True)):
        if causal and not bench.cls.supports.causal:
            continue
        call = bench.inputs(n, is_causal=causal, padding=True)
        mask = call.key_padding_mask
        assert mask is not None
        module = bench.build(n).eval()
        before = module(call.q, call.k, call.v, **call.asks) * call.real
        padded = ~mask[:, None, :, None]
        k, v = (x.masked_fill(padded, 1e3) for x in (call.k, call.v))
        after = module(call.q, k, v, **call.asks) * call.real
        how = bench.show(
            call,
            "a = m(q, k, v, **asks); hide = ~asks['key_padding_mask'][:, None, :, None]\n"
            "print((m(q, k.masked_fill(hide, 1e3), v.masked_fill(hide, 1e3), **asks) - a).abs())",
        )
        where = f"({_describe(call)})"
        assert_matches(f"contents of padded keys matter {where}", after, before, 1e-12, how)
        end = int(mask[-1].sum())
        alone = bench.build(n).eval()(
            *(x[-1:, :, :end] for x in (call.q, call.k, call.v)), is_causal=causal
        )
        assert_matches(
            f"padding changes the real tokens: row of {end} of {n} against the row alone {where}",
            before[-1:, :, :end], alone, F64_BUDGET, how,
        )  # fmt: skip
        nothing = torch.zeros_like(mask)
        nothing[0] = mask[0]
        out = module(call.q, call.k, call.v, is_causal=causal, key_padding_mask=nothing)
        if not bool((out[1:] == 0).all()):
            raise Violation(f"a row without any key must give zeros {where}", how)


def _batch(bench: Bench) -> None:
    for call in bench.calls((65, 257)):
        module = bench.build(call.k.shape[2]).eval()
        together = module(call.q, call.k, call.v, **call.asks)
        mask = call.key_padding_mask
        for row in range(call.q.shape[0]):
            one = slice(row, row + 1)
            alone = module(
                call.q[one],
                call.k[one],
                call.v[one],
                is_causal=call.is_causal,
                key_padding_mask=None if mask is None else mask[one],
            )
            how = bench.show(call, "print(m(q, k, v, **asks)[1:], m(q[1:], k[1:], v[1:]))")
            real = call.real[one] if call.real.shape[0] > 1 else call.real
            assert_matches(
                f"row {row} of a batch against the row alone ({_describe(call)})",
                together[one] * real,
                alone * real,
                F64_BUDGET,
                how,
            )


def _state(bench: Bench) -> None:
    """Decode in chunks and token by token, sequences of several lengths; each as if alone."""
    if not bench.cls.supports.state:
        raise NotAsked("state is not declared")
    for n, chunks in ((33, (17, *[1] * 16)), (130, (1, 64, 1, 1, 33, 30))):
        call = bench.inputs(n, padding=True)
        assert call.key_padding_mask is not None
        module = bench.build(n).eval()
        state = module.init_state(
            batch_size=BATCH, max_len=n, dtype=call.q.dtype, device=call.q.device
        )
        outs = []
        for part in zip(
            *(x.split(chunks, dim=2) for x in (call.q, call.k, call.v)),
            call.key_padding_mask.split(chunks, dim=1),
            strict=True,
        ):
            q, k, v, mask = part
            feed = module.step if q.shape[2] == 1 else module.prefill
            outs.append(feed(q, k, v, state, key_padding_mask=mask))
        decoded = torch.cat(outs, dim=2)
        for row, length in enumerate(call.key_padding_mask.sum(dim=1).tolist()):
            alone = tuple(x[row : row + 1, :, :length] for x in (call.q, call.k, call.v))
            how = bench.show(
                call,
                f"s = m.init_state(batch_size={BATCH}, max_len={n}, dtype=q.dtype)\n"
                f"d = torch.cat([m.prefill(*x, s) for x in "
                f"zip(*(t.split({chunks}, 2) for t in (q, k, v)))], 2)\n"
                "print(d - m(q, k, v, is_causal=True))",
            )
            assert_matches(
                f"decoded in chunks of {chunks} against one causal call (N={length})",
                decoded[row : row + 1, :, :length],
                module(*alone, is_causal=True),
                F64_BUDGET,
                how,
            )


def _determinism(bench: Bench) -> None:
    call = bench.inputs(100)
    first, second = (bench.build(100).eval() for _ in range(2))
    a, b = (m(call.q, call.k, call.v) for m in (first, second))
    how = bench.show(call, "print((m(q, k, v) - m(q, k, v)).abs().max())")
    assert_matches("two modules built under one seed differ", a, b, 0.0, how)
    assert_matches("two calls differ", first(call.q, call.k, call.v), a, 0.0, how)


def _exactness(bench: Bench) -> None:
    if not (bench.cls.exact and bench.cls.family == "dense"):
        raise NotAsked("not declared an exact dense method")
    for call in bench.calls((1, 65, 257)):
        module = bench.build(call.k.shape[2]).eval()
        expected = exact_attention_rows(call.q, call.k, call.v, **call.asks)
        how = bench.show(call, "print(m(q, k, v, **asks))")
        actual = module(call.q, call.k, call.v, **call.asks)
        assert_matches(
            f"output against exact softmax ({_describe(call)})",
            actual * call.real, expected * call.real, F64_BUDGET, how,
        )  # fmt: skip


# -- how a backend composes with the rest of torch ------------------------------------------------


def _persistence(bench: Bench) -> None:
    """Copies and loaded weights compute the same; a call draws nothing at random."""
    call = bench.inputs(65)
    module = bench.build(65).eval()
    expected = module(call.q, call.k, call.v)
    how = bench.show(
        call,
        "import copy, pickle\n"
        "print((copy.deepcopy(m)(q, k, v) - m(q, k, v)).norm())\n"
        "print((pickle.loads(pickle.dumps(m))(q, k, v) - m(q, k, v)).norm())",
    )
    loaded = bench.build(65, rng=1).eval()
    loaded.load_state_dict(module.state_dict())
    copies = {
        "a deep copy": copy.deepcopy(module),
        "a pickled module": pickle.loads(pickle.dumps(module)),
        "a module that loaded the state dict": loaded,
    }
    for name, other in copies.items():
        found = other(call.q, call.k, call.v)
        assert_matches(f"{name} against the module itself", found, expected, F64_BUDGET, how)
    before = torch.get_rng_state()
    bench.build(65).eval()  # which may draw
    torch.set_rng_state(before)
    module(call.q, call.k, call.v)
    if not torch.equal(torch.get_rng_state(), before):
        how = bench.show(call, "s = torch.get_rng_state(); m.eval()(q, k, v)\n"
                         "print((torch.get_rng_state() != s).any())")  # fmt: skip
        raise Violation("a call in eval mode draws from torch's global generator", how)


def _second_derivative(bench: Bench) -> None:
    """A Hessian times a vector is that of the reference, or refused.

    The output's gradient is a constant: a backward pass of one order drops the rest silently then.
    """
    for call in bench.calls((2, 65)):
        module = bench.build(call.k.shape[2]).to(torch.float64).eval()
        how = bench.show(
            call,
            "q.requires_grad_(); k.requires_grad_(); v.requires_grad_()\n"
            "g = torch.autograd.grad(m(q, k, v, **asks).sum(), (q, k, v), create_graph=True)\n"
            "print(torch.autograd.grad(sum(x.sum() for x in g), (q, k, v)))",
        )
        expected = _hessian_products(bench, call, module.reference)
        try:
            actual = _hessian_products(bench, call, module)
        except (RuntimeError, NotImplementedError):
            continue  # refused
        if actual is None or expected is None:
            raise Violation(f"second derivatives are dropped ({_describe(call)})", how)
        for name, ours, right in zip("qkv", actual, expected, strict=True):
            what = f"second derivatives along {name} ({_describe(call)})"
            _assert_gradient(what, ours, right, how)


def _hessian_products(
    bench: Bench, call: Inputs, function: Callable[..., Tensor]
) -> tuple[Tensor, ...] | None:
    """Return the Hessian of a weighted sum times a vector; `None` = the gradient has no graph."""
    leaves = [x.detach().clone().requires_grad_() for x in (call.q, call.k, call.v)]
    loss = (function(*leaves, **call.asks) * (_draw(bench, call.q) * call.real)).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    along = [(g * _draw(bench, g)).sum() for g in first]
    total = torch.stack(along).sum()
    if not total.requires_grad:
        return None
    return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)


def _in_place(bench: Bench) -> None:
    """What changes in place between the passes: the gradient of what was computed, or an error."""
    call = bench.inputs(65)
    seed: dict[str, Any] = {"seed": 1} if "seed" in bench.cls.options() else {}
    other = bench.build(65, rng=1, **seed).to(torch.float64)
    changes: dict[str, Callable[[Attention, Tensor, Tensor, Tensor], object]] = {
        "load_state_dict": lambda m, q, k, v: m.load_state_dict(other.state_dict()),
        "q.zero_()": lambda m, q, k, v: q.zero_(),
        "k.zero_()": lambda m, q, k, v: k.zero_(),
        "v.zero_()": lambda m, q, k, v: v.zero_(),
    }
    if hasattr(bench.cls, "redraw"):
        changes["redraw()"] = lambda m, q, k, v: m.redraw()  # type: ignore[operator]
    weight = _draw(bench, call.q)
    for name, change in changes.items():
        results = []
        for changed in (False, True):
            module = bench.build(65).to(torch.float64).eval()
            leaves = [x.detach().clone().requires_grad_() for x in (call.q, call.k, call.v)]
            inputs = [x * 1.0 for x in leaves]
            out = module(*inputs)
            if changed:
                with torch.no_grad():
                    change(module, *inputs)
            try:
                results.append(torch.autograd.grad(out, leaves, weight))
            except RuntimeError:
                break  # torch's error: something was modified by an in-place operation
        if len(results) < 2:
            continue
        how = bench.show(
            call,
            "q.requires_grad_(); a, b, c = q * 1, k * 1, v * 1; out = m(a, b, c).sum()\n"
            f"# then {name} before: print(torch.autograd.grad(out, q))",
        )
        for what, ours, right in zip("qkv", results[1], results[0], strict=True):
            _assert_gradient(
                f"gradient of {what} after {name} between the passes", ours, right, how
            )


def _meta(bench: Bench) -> None:
    """Made on the meta device: a dry run gives shapes, `reset_parameters` gives the module."""
    call = bench.inputs(65)
    expected = bench.build(65).eval()
    with torch.device("meta"):
        module = bench.build(65, device="meta").eval()
    options = "".join(f", {k}={v!r}" for k, v in bench.options.items())
    extra = ", seq_len=65" if "seq_len" in bench.cls.options() else ""
    how = (
        "import torch, attention\nwith torch.device('meta'):\n"
        f"    m = attention.get({bench.cls.name!r})(num_heads={HEADS}, head_dim={DIM}{extra}"
        f"{options})\n"
        f"    print(m(*torch.randn(3, 2, {HEADS}, 65, {DIM})).shape)\n"
        "m.to_empty(device='cpu')\n"
        "for part in m.modules():\n"
        "    if [*part.parameters(recurse=False), *part.buffers(recurse=False)]:\n"
        "        part.reset_parameters()"
    )
    shape = module(*(x.to("meta") for x in (call.q, call.k, call.v))).shape
    if shape != call.q.shape:
        raise Violation(f"a dry run on meta gives {tuple(shape)}, not {tuple(call.q.shape)}", how)
    module = module.to_empty(device=bench.device)
    torch.manual_seed(0)
    for part in module.modules():  # as FSDP does
        if [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
            reset = getattr(part, "reset_parameters", None)
            if reset is None:
                what = f"{type(part).__name__} holds parameters or buffers"
                raise Violation(f"{what}, and has no reset_parameters()", how)
            reset()
    found = module(call.q, call.k, call.v)
    right = expected(call.q, call.k, call.v)
    assert_matches("made on meta, then reset_parameters()", found, right, F64_BUDGET, how)


def _functional(bench: Bench) -> None:
    """`torch.func`: a gradient, a call with given parameters, a gradient an example."""
    for causal in (False, True) if bench.cls.supports.causal else (False,):
        call = bench.inputs(65, is_causal=causal)
        module = bench.build(65).to(torch.float64).eval()
        weight = _draw(bench, call.q)
        how = bench.show(
            call,
            "f = lambda q, k, v: m(q, k, v, **asks).sin().sum()\n"
            "print(torch.func.grad(f, (0, 1, 2))(q, k, v))\n"
            "g = lambda q, k, v: f(q[None], k[None], v[None])\n"
            "print(torch.vmap(torch.func.grad(g, (0, 1, 2)))(q, k, v))",
        )
        leaves = [x.detach().clone().requires_grad_() for x in (call.q, call.k, call.v)]
        out = module(*leaves, is_causal=causal)
        expected = torch.autograd.grad((out.sin() * weight).sum(), leaves)
        loss = functools.partial(_functional_loss, module, causal)
        ways: dict[str, tuple[Callable[..., Any], bool]] = {
            "torch.func.grad": (torch.func.grad(loss, (0, 1, 2)), False),
            "torch.vmap of torch.func.grad": (torch.vmap(torch.func.grad(loss, (0, 1, 2))), True),
        }
        for way, (function, an_example) in ways.items():
            inputs = [call.q, call.k, call.v, weight]
            grads = function(*(x[:, None] if an_example else x for x in inputs))
            for what, ours, right in zip("qkv", grads, expected, strict=True):
                name = f"{way}, gradient of {what} (is_causal={causal})"
                _assert_gradient(name, ours.view(right.shape), right, how)


def _functional_loss(
    module: Attention, is_causal: bool, q: Tensor, k: Tensor, v: Tensor, weight: Tensor
) -> Tensor:
    """Call a module with its own parameters and buffers, given to it."""
    given = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    out: Tensor = torch.func.functional_call(module, given, (q, k, v), {"is_causal": is_causal})
    return (out.sin() * weight).sum()


def _padding_content(bench: Bench) -> None:
    """NaN and infinity in padded keys and values: no trace, forward, backward or decoding."""
    if not bench.cls.supports.key_padding:
        raise NotAsked("key_padding is not declared")
    for causal in (False, True) if bench.cls.supports.causal else (False,):
        call = bench.inputs(65, is_causal=causal, padding=True)
        module = bench.build(65).to(torch.float64).eval()
        how = bench.show(
            call,
            "p = ~asks['key_padding_mask'][:, None, :, None]; nan = float('nan')\n"
            "print(m(q, k.masked_fill(p, nan), v.masked_fill(p, nan), **asks))",
        )
        ways = [_padded_call, _padded_decoding]
        for way in ways if causal and bench.cls.supports.state else ways[:1]:
            expected = way(bench, call, module, 0.0)
            for fill in (math.nan, math.inf):
                found = way(bench, call, module, fill)
                for name, right in expected.items():
                    what = f"{name} with {fill} in padding ({_describe(call)})"
                    _assert_gradient(what, found[name], right, how)


def _padded_call(bench: Bench, call: Inputs, module: Attention, fill: float) -> dict[str, Tensor]:
    """Call with `fill` in padded keys and values: the real rows, and their gradients."""
    k, v = _with_padding(call, fill)
    leaves = [x.detach().clone().requires_grad_() for x in (call.q, k, v)]
    out = module(*leaves, **call.asks)
    grads = torch.autograd.grad(out, leaves, _draw(bench, call.q) * call.real)
    found = {f"gradient of {n}": g for n, g in zip("qkv", grads, strict=True)}
    return {"output": out.where(call.real, 0.0), **found}


def _padded_decoding(
    bench: Bench, call: Inputs, module: Attention, fill: float
) -> dict[str, Tensor]:
    """Decode with `fill` in padded keys and values: the real rows."""
    assert call.key_padding_mask is not None
    k, v = _with_padding(call, fill)
    batch, _, length, _ = call.q.shape
    state = module.init_state(
        batch_size=batch, max_len=length, dtype=call.q.dtype, device=call.q.device
    )
    outs = []
    for at in (slice(0, 40), slice(40, length - 1), slice(length - 1, length)):
        feed = module.prefill if at.stop < length else module.step
        mask = call.key_padding_mask[:, at]
        part = (call.q[:, :, at], k[:, :, at], v[:, :, at])
        outs.append(feed(*part, state, key_padding_mask=mask))
    return {"decoded": torch.cat(outs, dim=2).where(call.real, 0.0)}


def _with_padding(call: Inputs, fill: float) -> tuple[Tensor, Tensor]:
    """Return keys and values with `fill` at padding."""
    assert call.key_padding_mask is not None
    padded = ~call.key_padding_mask[:, None, :, None]
    return call.k.masked_fill(padded, fill), call.v.masked_fill(padded, fill)


def _draw(bench: Bench, like: Tensor) -> Tensor:
    """Draw numbers of a tensor's shape, always the same."""
    generator = torch.Generator().manual_seed(like.numel())
    return torch.randn(like.shape, dtype=torch.float64, generator=generator).to(bench.device)


def _assert_gradient(name: str, actual: Tensor, oracle: Tensor, how: str) -> None:
    """Raise `Violation` unless a gradient is the oracle's; the right one may be zero."""
    scale = oracle.detach().norm() + 1e-3 * math.sqrt(oracle.numel())
    error = float((actual.detach() - oracle.detach()).norm() / scale)
    if not error <= 1e-7:  # NaN fails
        raise Violation(f"{name}: relative L2 error {error:.2e}", how)


def _refusals(bench: Bench) -> None:
    supports, module, call = bench.cls.supports, bench.build(65), bench.inputs(65)
    asked: list[tuple[str, str, Callable[[], Any]]] = []
    if not supports.causal:
        asked.append(
            ("causal", "is_causal", lambda: module(call.q, call.k, call.v, is_causal=True))
        )
    if not supports.cross:
        short = call.k[:, :, :33]
        asked.append(("cross", "k", lambda: module(call.q, short, short)))
    if not supports.key_padding:
        mask = torch.ones(BATCH, 65, dtype=torch.bool, device=bench.device)
        asked.append(
            (
                "key_padding",
                "key_padding_mask",
                lambda: module(call.q, call.k, call.v, key_padding_mask=mask),
            )
        )
    if not supports.log_sum_exp:
        asked.append(
            ("log_sum_exp", "return_lse", lambda: module(call.q, call.k, call.v, return_lse=True))
        )
    if not supports.state:
        asked.append(("state", "state", lambda: module.init_state(batch_size=1, max_len=65)))
    for what, argument, request in asked:
        _expect(bench, call, f"{what} is not declared", argument, (UnsupportedError,), request)
    for argument, error, request in _bad_calls(module, call):
        _expect(bench, call, f"bad {argument}", argument, error, request)
    if "dropout_p" in bench.cls.options() and not supports.dropout:
        _expect(bench, call, "dropout is not declared", "dropout_p", (UnsupportedError,),
                lambda: bench.build(65, dropout_p=0.5))  # fmt: skip


def _bad_calls(
    m: Attention, c: Inputs
) -> list[tuple[str, tuple[type[Exception], ...], Callable[[], Any]]]:
    """List calls that every backend must refuse, with the argument the error names."""
    mask = torch.ones(BATCH, c.k.shape[2] + 1, dtype=torch.bool, device=c.q.device)
    value, kind = (ValueError,), (TypeError,)
    return [
        ("q", kind, lambda: m(c.q.tolist(), c.k, c.v)),
        ("q", value, lambda: m(c.q[0], c.k, c.v)),
        ("q", value, lambda: m(c.q[:, :-1], c.k, c.v)),
        ("q", value, lambda: m(c.q[..., :-1], c.k[..., :-1], c.v[..., :-1])),
        ("q", value, lambda: m(c.q[:, :, :0], c.k, c.v)),
        ("q", kind, lambda: m(c.q.long(), c.k.long(), c.v.long())),
        ("k", value, lambda: m(c.q, c.k[:1], c.v[:1])),
        ("k", value, lambda: m(c.q, c.k[:, :3], c.v[:, :3])),
        ("k", value, lambda: m(c.q, c.k.float(), c.v)),
        ("v", value, lambda: m(c.q, c.k, c.v[:, :, :-1])),
        ("is_causal", kind, lambda: m(c.q, c.k, c.v, is_causal=1)),
        ("key_padding_mask", value, lambda: m(c.q, c.k, c.v, key_padding_mask=mask)),
        ("key_padding_mask", kind, lambda: m(c.q, c.k, c.v, key_padding_mask=mask.float())),
        ("attn_mask", kind, lambda: m(c.q, c.k, c.v, attn_mask=None)),
    ]


def _expect(
    bench: Bench,
    call: Inputs,
    what: str,
    argument: str,
    errors: tuple[type[Exception], ...],
    request: Callable[[], Any],
) -> None:
    how = bench.show(call, f"# {what}: expected {errors[0].__name__} naming {argument}")
    try:
        request()
    except errors as error:
        if argument not in str(error):
            raise Violation(f"{what}: the error does not name {argument}: {error}", how) from error
        return
    except Exception as error:
        raise Violation(
            f"{what}: expected {errors[0].__name__}, got {type(error).__name__}: {error}", how
        ) from error
    raise Violation(f"{what}: accepted instead of refused", how)


class _Largest(TorchDispatchMode):
    """Watches the tensors that operations make, forward and backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out: Any = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.nbytes = max(self.nbytes, tensor.untyped_storage().nbytes())
        return out


def _held(bench: Bench, call: Inputs, mode: Mode) -> tuple[int, int]:
    """Return the bytes of the largest tensor made; of the inputs and what is kept beside them."""
    module = bench.build(call.k.shape[2]).to(torch.float32)
    leaves = [x.requires_grad_(mode == "training") for x in (call.q, call.k, call.v)]
    watch, kept = _Largest(), dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    for leaf in leaves:  # kept in any case: a method that copies them keeps more by a factor
        keep(leaf)
    with watch, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = module(*leaves, **call.asks)
        if mode == "training":
            out.sum().backward()
    return watch.nbytes, sum(kept.values())


def _hidden_memory(bench: Bench) -> None:
    declared = bench.cls.memory_exponent
    if declared >= 2:
        raise NotAsked("quadratic memory is declared")
    modes: tuple[Mode, ...] = ("forward", "training")
    for causal, padding, mode in itertools.product(
        (False, True) if bench.cls.supports.causal else (False,),
        (False, True) if bench.cls.supports.key_padding else (False,),
        modes,
    ):
        small, large = (
            bench.inputs(n, is_causal=causal, padding=padding, dtype=torch.float32)
            for n in (1024, 4096)
        )
        held = zip(_held(bench, small, mode), _held(bench, large, mode), strict=True)
        what = ("the largest tensor", "what is kept for the backward pass")
        for name, (before, after) in zip(what, held, strict=True):
            exponent = math.log(after / before) / math.log(4) if before else 0.0
            if exponent > declared + 0.25:
                raise Violation(
                    f"{name} grows with N^{exponent:.2f} ({before} B at 1024, {after} B at "
                    f"4096; {mode}, is_causal={causal}, padding={padding}), declared "
                    f"{declared:g}",
                    bench.show(large, "# a tensor of N·N hides here"),
                )


def counted_ops(module: Attention, call: Inputs, mode: Mode) -> int:
    """Count the operations torch sees in one call, fused attention on its math path."""
    leaves = [x.detach().requires_grad_(mode == "training") for x in (call.q, call.k, call.v)]
    module.train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = module(*leaves, **call.asks)
        if mode == "training":
            out.sum().backward()
    total: int = counter.get_total_flops()
    return total


def _problem(call: Inputs) -> Problem:
    return Problem.of(call.q, call.k, is_causal=call.is_causal)


def _operations(bench: Bench) -> None:
    # Torch's math path multiplies the hidden half of a causal matrix too, so where a dense method
    # hands causality to torch its count says nothing.
    causals = (
        (False, True) if bench.cls.supports.causal and bench.cls.family != "dense" else (False,)
    )
    for n, causal in itertools.product((65, 257, 700), causals):
        for mode in ("forward", "training"):
            call = bench.inputs(n, is_causal=causal, dtype=torch.float32)
            module = bench.build(n)
            cost: Cost = module.cost(_problem(call), mode)
            counted = counted_ops(module, call, mode)
            if counted == 0 and cost.executed_ops:
                raise NotAsked("torch's counter sees none of its operations (a pinned kernel)")
            if not 0.99 * cost.pattern_ops <= counted <= 1.01 * cost.executed_ops:
                raise Violation(
                    f"torch counts {counted} operations ({mode}, {_describe(call)}), declared "
                    f"{cost.pattern_ops} of the pattern, {cost.executed_ops} executed",
                    bench.show(call, f"print(m.cost(attention.Problem.of(q, k), {mode!r}))"),
                )


def _ops_exponent(bench: Bench) -> None:
    lengths = (4096, 16384)
    counts = []
    for n in lengths:
        call = bench.inputs(n, batch=1, dtype=torch.float32)
        module = bench.build(n)
        cost = module.cost(_problem(call), "forward")
        counts.append(cost.executed_ops)
    exponent = math.log(counts[1] / counts[0]) / math.log(lengths[1] / lengths[0])
    if abs(exponent - bench.cls.time_exponent) > 0.1:
        raise Violation(
            f"executed operations grow with N^{exponent:.2f} from {lengths[0]} to {lengths[1]}, "
            f"declared {bench.cls.time_exponent:g}",
            bench.show(call, "print(m.cost(attention.Problem.of(q, k), 'forward'))"),
        )


def _time_exponent(bench: Bench) -> None:
    lengths = (4096, 8192, 16384)
    medians = []
    for n in lengths:
        call = bench.inputs(n, batch=1, dtype=torch.float32)
        module = bench.build(n).eval()
        samples = []
        with torch.inference_mode():
            for _ in range(6):
                start = time.perf_counter()
                module(call.q, call.k, call.v)
                if bench.device == "cuda":
                    torch.cuda.synchronize()
                samples.append(time.perf_counter() - start)
        medians.append(statistics.median(samples[1:]))
    exponent = math.log(medians[-1] / medians[0]) / math.log(lengths[-1] / lengths[0])
    if abs(exponent - bench.cls.time_exponent) > 0.35:
        shown = ", ".join(f"{n}: {s * 1e3:.1f} ms" for n, s in zip(lengths, medians, strict=True))
        raise Violation(
            f"time grows with N^{exponent:.2f} ({shown}), declared {bench.cls.time_exponent:g}",
            bench.show(call, "# time m(q, k, v) at these lengths"),
        )


CHECKS: dict[str, Callable[[Bench], None]] = {
    "declaration": _declaration,
    "shapes": _shapes,
    "dtypes": _dtypes,
    "twin": _twin,
    "gradients": _gradients,
    "exactness": _exactness,
    "future": _future,
    "padding": _padding,
    "batch": _batch,
    "state": _state,
    "determinism": _determinism,
    "persistence": _persistence,
    "second_derivative": _second_derivative,
    "in_place": _in_place,
    "meta": _meta,
    "functional": _functional,
    "padding_content": _padding_content,
    "refusals": _refusals,
    "hidden_memory": _hidden_memory,
    "operations": _operations,
    "ops_exponent": _ops_exponent,
    "time_exponent": _time_exponent,
}
"""Name to check, in the order they run."""

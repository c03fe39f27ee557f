"""Checks of how a backend composes with the rest of torch."""

from __future__ import annotations

import copy
import functools
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attention.base import Attention
from attention.testing.bench import (
    DIM,
    F64_BUDGET,
    HEADS,
    Bench,
    Inputs,
    NotAsked,
    Violation,
    assert_gradient,
    assert_matches,
    described,
    drawn,
)


def check_persistence(bench: Bench) -> None:
    """Copies and loaded weights compute the same; a call draws nothing at random."""
    call = bench.inputs(65)
    module = bench.build(65).eval()
    expected = call.through(module)
    how = bench.show(
        call,
        "import copy, pickle\n"
        "print((copy.deepcopy(m)(q, k, v, **asks) - m(q, k, v, **asks)).norm())\n"
        "print((pickle.loads(pickle.dumps(m))(q, k, v, **asks) - m(q, k, v, **asks)).norm())",
    )
    loaded = bench.build(65, rng=1).eval()
    loaded.load_state_dict(module.state_dict())
    copies = {
        "a deep copy": copy.deepcopy(module),
        "a pickled module": pickle.loads(pickle.dumps(module)),
        "a module that loaded the state dict": loaded,
    }
    for name, other in copies.items():
        actual = call.through(other)
        assert_matches(f"{name} against the module itself", actual, expected, F64_BUDGET, how)
    before = torch.get_rng_state()
    bench.build(65).eval()  # which may draw
    torch.set_rng_state(before)
    call.through(module)
    if not torch.equal(torch.get_rng_state(), before):
        how = bench.show(call, "s = torch.get_rng_state(); m.eval()(q, k, v, **asks)\n"
                         "print((torch.get_rng_state() != s).any())")  # fmt: skip
        raise Violation("a call in eval mode draws from torch's global generator", how)


def check_second_derivative(bench: Bench) -> None:
    """A Hessian times a vector is that of the reference, or refused.

    The output's gradient is a constant: a backward pass of one order drops the rest silently then.
    """
    for call in bench.calls((2, 65)):
        module = bench.build(call.k.shape[2]).to(torch.float64).eval()
        how = bench.show(
            call,
            "q.requires_grad_(); k.requires_grad_(); v.requires_grad_()\n"
            "g = torch.autograd.grad(m(q, k, v, **asks).sum(), (q, k, v), create_graph=True)\n"
            "print([x.requires_grad for x in g])",
        )
        expected = _hessian_products(bench, call, module.reference)
        try:
            actual = _hessian_products(bench, call, module)
        except (RuntimeError, NotImplementedError):
            continue  # refused
        if actual is None or expected is None:
            raise Violation(f"second derivatives are dropped ({described(call)})", how)
        for name, ours, right in zip("qkv", actual, expected, strict=True):
            what = f"second derivatives along {name} ({described(call)})"
            assert_gradient(what, ours, right, how)


def _hessian_products(
    bench: Bench, call: Inputs, function: Callable[..., Tensor]
) -> tuple[Tensor, ...] | None:
    """Return the Hessian of a weighted sum times a vector; `None` = the gradient has no graph."""
    leaves = call.leaves()
    loss = (function(*leaves, **call.asks) * (drawn(bench, call.q) * call.real)).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    along = [(g * drawn(bench, g)).sum() for g in first]
    total = torch.stack(along).sum()
    if not total.requires_grad:
        return None
    return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)


def check_in_place(bench: Bench) -> None:
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
    weight = drawn(bench, call.q)
    for name, change in changes.items():
        results = []
        for changed in (False, True):
            module = bench.build(65).to(torch.float64).eval()
            leaves = call.leaves()
            inputs = [x * 1.0 for x in leaves]
            out = module(*inputs, **call.asks)
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
            "q.requires_grad_(); a, b, c = q * 1, k * 1, v * 1; out = m(a, b, c, **asks).sum()\n"
            f"# then {name} before: print(torch.autograd.grad(out, q))",
        )
        for what, ours, right in zip("qkv", results[1], results[0], strict=True):
            assert_gradient(
                f"gradient of {what} after {name} between the passes", ours, right, how
            )


def check_meta(bench: Bench) -> None:
    """Made on the meta device: a dry run gives shapes, `reset_parameters` gives the module."""
    call = bench.inputs(65)
    expected = bench.build(65).eval()
    with torch.device("meta"):
        module = bench.build(65, device="meta").eval()
    options = "".join(f", {k}={v!r}" for k, v in bench.options.items())
    extra = ", seq_len=65" if "seq_len" in bench.cls.options() else ""
    how = (
        "with torch.device('meta'):\n"
        f"    m = cls(num_heads={HEADS}, head_dim={DIM}{extra}{options})\n"
        f"    print(m(*torch.randn(3, 2, {HEADS}, 65, {DIM})).shape)\n"
        "m.to_empty(device='cpu')  # then reset_parameters() of each part that holds some"
    )
    on_meta = {name: x.to("meta") for name, x in call.extra.items()}
    shape = module(
        *(x.to("meta") for x in (call.q, call.k, call.v)), is_causal=call.is_causal, **on_meta
    ).shape
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
    actual, right = call.through(module), call.through(expected)
    assert_matches("made on meta, then reset_parameters()", actual, right, F64_BUDGET, how)


def check_functional(bench: Bench) -> None:
    """`torch.func`: a gradient, a call with given parameters, a gradient an example."""
    for causal in bench.causals:
        call = bench.inputs(65, is_causal=causal)
        module = bench.build(65).to(torch.float64).eval()
        weight = drawn(bench, call.q)
        how = bench.show(
            call,
            "f = lambda q, k, v: m(q, k, v, **asks).sin().sum()\n"
            "print(torch.func.grad(f, (0, 1, 2))(q, k, v))\n"
            "g = lambda q, k, v: f(q[None], k[None], v[None])\n"
            "print(torch.vmap(torch.func.grad(g, (0, 1, 2)))(q, k, v))",
        )
        leaves = call.leaves()
        out = module(*leaves, **call.bare)
        expected = torch.autograd.grad((out.sin() * weight).sum(), leaves)
        names = tuple(call.extra)
        loss = functools.partial(_functional_loss, module, causal, names)
        ways: dict[str, tuple[Callable[..., Any], bool]] = {
            "torch.func.grad": (torch.func.grad(loss, (0, 1, 2)), False),
            "torch.vmap of torch.func.grad": (torch.vmap(torch.func.grad(loss, (0, 1, 2))), True),
        }
        for way, (function, an_example) in ways.items():
            inputs = [call.q, call.k, call.v, weight, *call.extra.values()]
            with warnings.catch_warnings():  # torch's own, where an operation has no rule for vmap
                warnings.filterwarnings("ignore", message="There is a performance drop")
                grads = function(*(x[:, None] if an_example else x for x in inputs))
            for what, ours, right in zip("qkv", grads, expected, strict=True):
                name = f"{way}, gradient of {what} (is_causal={causal})"
                assert_gradient(name, ours.view(right.shape), right, how)


def _functional_loss(
    module: Attention,
    is_causal: bool,
    names: tuple[str, ...],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor,
    *extra: Tensor,
) -> Tensor:
    """Call a module with its own parameters and buffers, given to it."""
    asks = {"is_causal": is_causal, **dict(zip(names, extra, strict=True))}
    given = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    out: Tensor = torch.func.functional_call(module, given, (q, k, v), asks)
    return (out.sin() * weight).sum()


def check_padding_content(bench: Bench) -> None:
    """NaN and infinity in padded keys and values: no trace, forward, backward or decoding."""
    if not bench.cls.supports.key_padding:
        raise NotAsked("key_padding is not declared")
    for causal in bench.causals:
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
                actual = way(bench, call, module, fill)
                for name, right in expected.items():
                    what = f"{name} with {fill} in padding ({described(call)})"
                    assert_gradient(what, actual[name], right, how)


def _padded_call(bench: Bench, call: Inputs, module: Attention, fill: float) -> dict[str, Tensor]:
    """Call with `fill` in padded keys and values: the real rows, and their gradients."""
    k, v, extra = _with_padding(call, fill)
    leaves = [x.detach().clone().requires_grad_() for x in (call.q, k, v, *extra.values())]
    more = dict(zip(extra, leaves[3:], strict=True))
    out = module(*leaves[:3], **{**call.asks, **more})
    grads = torch.autograd.grad(out, leaves, drawn(bench, call.q) * call.real)
    names = ("q", "k", "v", *extra)
    gradients = {f"gradient of {n}": g for n, g in zip(names, grads, strict=True)}
    return {"output": out.where(call.real, 0.0), **gradients}


def _padded_decoding(
    bench: Bench, call: Inputs, module: Attention, fill: float
) -> dict[str, Tensor]:
    """Decode with `fill` in padded keys and values: the real rows."""
    assert call.key_padding_mask is not None
    k, v, extra = _with_padding(call, fill)
    batch, _, length, _ = call.q.shape
    state = module.init_state(
        batch_size=batch, max_len=length, dtype=call.q.dtype, device=call.q.device
    )
    outs = []
    for at in (slice(0, 40), slice(40, length - 1), slice(length - 1, length)):
        feed = module.prefill if at.stop < length else module.step
        mask = call.key_padding_mask[:, at]
        part = (call.q[:, :, at], k[:, :, at], v[:, :, at])
        more = {name: x[:, :, at] for name, x in extra.items()}
        outs.append(feed(*part, state, key_padding_mask=mask, **more))
    return {"decoded": torch.cat(outs, dim=2).where(call.real, 0.0)}


def _with_padding(call: Inputs, fill: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return keys, values and the further inputs with `fill` at padding."""
    assert call.key_padding_mask is not None
    padded = ~call.key_padding_mask[:, None, :]
    k, v = (x.masked_fill(padded[..., None], fill) for x in (call.k, call.v))
    extra = {
        name: x.masked_fill(padded if x.dim() == 3 else padded[..., None], fill)
        for name, x in call.extra.items()
    }
    return k, v, extra

"""Checks of what a backend computes: against its reference, masks, states."""

from __future__ import annotations

import itertools

import torch

from attention.functional import error_budget, exact_attention_rows, relative_l2
from attention.testing.bench import (
    BATCH,
    F64_BUDGET,
    LENGTHS,
    Bench,
    Inputs,
    NotAsked,
    Violation,
    assert_gradient,
    assert_matches,
    described,
    drawn,
)


def check_shapes(bench: Bench) -> None:
    """The output has the shape, dtype and device of q, and is finite."""
    for call in bench.calls():
        out = call.through(bench.build(call.k.shape[2]).to(torch.float64))
        how = bench.show(call, "print(m(q, k, v, **asks).shape, q.shape)")
        if (out.shape, out.dtype, out.device) != (call.q.shape, call.q.dtype, call.q.device):
            raise Violation(
                f"output is {tuple(out.shape)} {out.dtype} on {out.device}, expected that of q: "
                f"{tuple(call.q.shape)} {call.q.dtype} on {call.q.device} ({described(call)})",
                how,
            )
        if not bool(out.isfinite().all()):
            raise Violation(f"output is not finite ({described(call)})", how)


def check_dtypes(bench: Bench) -> None:
    """Each declared dtype is as accurate as the reference in float32 allows."""
    for dtype in bench.cls.supports.dtypes[bench.device]:
        for causal in bench.causals:
            wide = bench.inputs(100, is_causal=causal).to(dtype).to(torch.float64)
            call = wide.to(dtype)
            module = bench.build(100).eval()
            out = call.through(module)
            how = bench.show(call, "print(m(q, k, v, **asks), m.reference(q, k, v, **asks))")
            if out.dtype != dtype:
                raise Violation(f"dtype: {dtype} in, {out.dtype} out", how)
            oracle = wide.through(module.reference)
            plain = call.to(torch.promote_types(dtype, torch.float32)).through(module.reference)
            budget = error_budget(dtype, relative_l2(plain, oracle))
            assert_matches(f"{dtype} ({described(call)})", out, oracle, budget, how)


def check_reference(bench: Bench) -> None:
    """The output equals the reference in float64, of strided inputs too."""
    for call in bench.calls():
        module = bench.build(call.k.shape[2]).eval()
        then = "print((m(q, k, v, **asks) - m.reference(q, k, v, **asks)).norm())"
        how = bench.show(call, then)
        expected = call.through(module.reference)
        for name, inputs in (("", call), (", strided", _strided(call))):
            out = inputs.through(module)
            assert_matches(
                f"output against reference ({described(call)}{name})",
                out * call.real,
                expected * call.real,
                F64_BUDGET,
                how,
            )
        rows = torch.tensor([0, call.q.shape[2] - 1], device=call.q.device)
        some = module.reference(call.q, call.k, call.v, **call.asks, rows=rows)
        assert_matches(
            f"reference(rows=…) against its own rows ({described(call)})",
            some,
            expected[:, :, rows],
            F64_BUDGET,
            how,
        )


def _strided(call: Inputs) -> Inputs:
    """Lay q, k and v out as a multi-head layer's projections do: ``[B, N, H, D]`` in memory."""
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (call.q, call.k, call.v))
    return Inputs(q, k, v, call.is_causal, call.key_padding_mask, call.extra)


def check_gradients(bench: Bench) -> None:
    """The gradients of inputs and parameters equal the reference's."""
    for call in bench.calls():
        module = bench.build(call.k.shape[2]).to(torch.float64)
        leaves = call.leaves()
        extra = {n: x.detach().clone().requires_grad_() for n, x in call.extra.items()}
        q, k, v = leaves
        leaves += extra.values()
        leaves += [p for p in module.parameters() if p.requires_grad]
        asks = {**call.asks, **extra}
        weight = drawn(bench, call.q) * call.real
        grads = [
            torch.autograd.grad(function(q, k, v, **asks), leaves, weight, allow_unused=True)
            for function in (module, module.reference)
        ]
        held = [n for n, p in module.named_parameters() if p.requires_grad]
        names = ["q", "k", "v", *extra, *held]
        for name, actual, oracle in zip(names, *grads, strict=True):
            how = bench.show(
                call,
                "q.requires_grad_(); k.requires_grad_(); v.requires_grad_()\n"
                "m(q, k, v, **asks).sum().backward(); print(q.grad, k.grad, v.grad)",
            )
            if (actual is None) != (oracle is None):
                raise Violation(
                    f"gradient of {name}: {'none' if actual is None else 'one'}, the reference "
                    f"has {'none' if oracle is None else 'one'} ({described(call)})",
                    how,
                )
            if actual is None or oracle is None:
                continue
            assert_gradient(f"gradient of {name} ({described(call)})", actual, oracle, how)


def check_future(bench: Bench) -> None:
    """A causal query does not see later keys."""
    if not bench.cls.supports.causal:
        raise NotAsked("causal is not declared")
    for n, cut in ((65, 40), (257, 100), (257, 200)):
        call = bench.inputs(n, is_causal=True)
        module = bench.build(n).eval()
        before = module(call.q, call.k, call.v, **call.bare)[:, :, :cut]
        later = {}
        for name, x in call.extra.items():  # the last tokens' numbers in turn: drawn as the others
            later[name] = torch.cat([x[:, :, :cut], x[:, :, cut:].flip(2)], dim=2)
        k, v = call.k.clone(), call.v.clone()
        k[:, :, cut:] = torch.randn_like(k[:, :, cut:]) * 3
        v[:, :, cut:] = torch.randn_like(v[:, :, cut:]) * 3
        after = module(call.q, k, v, is_causal=True, **later)[:, :, :cut]
        how = bench.show(
            call,
            f"a = m(q, k, v, **asks)[:, :, :{cut}]; k[:, :, {cut}:] = 3; v[:, :, {cut}:] = 3\n"
            f"print((m(q, k, v, **asks)[:, :, :{cut}] - a).abs().max())",
        )
        assert_matches(
            f"future leak by value: N={n}, keys from {cut} on changed", after, before, 1e-12, how
        )
        k, v = (x.detach().clone().requires_grad_() for x in (call.k, call.v))
        later = {n: x.detach().clone().requires_grad_() for n, x in call.extra.items()}
        module(call.q, k, v, is_causal=True, **later)[:, :, :cut].sum().backward()
        for name, x in (("k", k), ("v", v), *later.items()):
            assert x.grad is not None
            leak = float(x.grad[:, :, cut:].abs().max())
            if leak > 0:
                raise Violation(
                    f"future leak by gradient: N={n}, outputs before {cut} have gradient "
                    f"{leak:.1e} at a later {name}",
                    how,
                )


def check_padding(bench: Bench) -> None:
    """A padded row is as the row alone; one without any key gives zeros."""
    if not bench.cls.supports.key_padding:
        raise NotAsked("key_padding is not declared")
    for n, causal in itertools.product(LENGTHS[1:], bench.causals):
        call = bench.inputs(n, is_causal=causal, padding=True)
        mask = call.key_padding_mask
        assert mask is not None
        module = bench.build(n).eval()
        together = call.through(module)
        how = bench.show(call, "print(m(q, k, v, **asks)[-1:], m(q[-1:], k[-1:], v[-1:]))")
        where = f"({described(call)})"
        end = int(mask[-1].sum())
        alone = bench.build(n).eval()(
            *(x[-1:, :, :end] for x in (call.q, call.k, call.v)),
            is_causal=causal, **call.extra_at(slice(end), slice(-1, None)),
        )  # fmt: skip
        assert_matches(
            f"padding changes the real tokens: row of {end} of {n} against the row alone {where}",
            together[-1:, :, :end], alone, F64_BUDGET, how,
        )  # fmt: skip
        nothing = torch.zeros_like(mask)
        nothing[0] = mask[0]
        out = module(call.q, call.k, call.v, key_padding_mask=nothing, **call.bare)
        if not bool((out[1:] == 0).all()):
            raise Violation(f"a row without any key must give zeros {where}", how)


def check_batch(bench: Bench) -> None:
    """A row of a batch is computed as if alone."""
    for call in bench.calls((65, 257)):
        module = bench.build(call.k.shape[2]).eval()
        together = call.through(module)
        mask = call.key_padding_mask
        for row in range(call.q.shape[0]):
            one = slice(row, row + 1)
            alone = module(
                call.q[one],
                call.k[one],
                call.v[one],
                is_causal=call.is_causal,
                key_padding_mask=None if mask is None else mask[one],
                **call.extra_at(slice(None), one),
            )
            how = bench.show(call, "print(m(q, k, v, **asks)[1:], m(q[1:], k[1:], v[1:]))")
            real = call.real[one] if call.real.shape[0] > 1 else call.real
            assert_matches(
                f"row {row} of a batch against the row alone ({described(call)})",
                together[one] * real,
                alone * real,
                F64_BUDGET,
                how,
            )


def check_state(bench: Bench) -> None:
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
        outs, start = [], 0
        for size in chunks:
            at = slice(start, start + size)
            q, k, v = (x[:, :, at] for x in (call.q, call.k, call.v))
            mask, start = call.key_padding_mask[:, at], start + size
            feed = module.step if size == 1 else module.prefill
            outs.append(feed(q, k, v, state, key_padding_mask=mask, **call.extra_at(at)))
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
                module(
                    *alone, is_causal=True, **call.extra_at(slice(length), slice(row, row + 1))
                ),
                F64_BUDGET,
                how,
            )


def check_determinism(bench: Bench) -> None:
    """Equal seeds make equal modules, and equal calls equal outputs."""
    call = bench.inputs(100)
    first, second = (bench.build(100).eval() for _ in range(2))
    a, b = (call.through(m) for m in (first, second))
    how = bench.show(call, "print((m(q, k, v, **asks) - m(q, k, v, **asks)).abs().max())")
    assert_matches("two modules built under one seed differ", a, b, 0.0, how)
    assert_matches("two calls differ", call.through(first), a, 0.0, how)


def check_exactness(bench: Bench) -> None:
    """A dense exact method equals softmax attention."""
    if not (bench.cls.exact and bench.cls.family == "dense"):
        raise NotAsked("not declared an exact dense method")
    if getattr(bench.build(1), "sink", None) is not None:
        raise NotAsked("a sink takes part in the softmax")
    for call in bench.calls((1, 65, 257)):
        module = bench.build(call.k.shape[2]).eval()
        expected = exact_attention_rows(call.q, call.k, call.v, **call.asks)
        how = bench.show(call, "print(m(q, k, v, **asks))")
        actual = call.through(module)
        assert_matches(
            f"output against exact softmax ({described(call)})",
            actual * call.real, expected * call.real, F64_BUDGET, how,
        )  # fmt: skip

"""Checks of packed documents: each is as if alone, and none leaves a trace in another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attention.base import Attention
from attention.packed import Packed
from attention.testing.bench import (
    F64_BUDGET,
    HEADS,
    Bench,
    Inputs,
    Violation,
    assert_gradient,
    assert_matches,
    drawn,
)

ROWS = ((33, 1, 17, 0, 17, 50, 20), (24, 24, 24), (65,))
"""Lengths of documents: several, also batched and padded ones, equal ones, a single one."""


def check_packed(bench: Bench) -> None:
    """Each packed document is as if alone, with its gradients."""
    for lengths in ROWS:
        for causal in bench.causals:
            packed = Packed(lengths)
            call = bench.inputs(packed.total, is_causal=causal, batch=1, kv_heads=HEADS // 2)
            module = bench.build(packed.longest).to(torch.float64).eval()
            out, grads = _packed(bench, call, module, packed, call.leaves())
            leaves = call.leaves()
            documents = zip(*(packed.split(x) for x in leaves), _asks(call, packed), strict=True)
            outs = [module(*x, **asks) for *x, asks in documents if x[0].shape[2]]
            alone = torch.cat(outs, dim=2)
            expected = torch.autograd.grad(alone, leaves, drawn(bench, alone))
            where = f"(lengths {list(lengths)}, is_causal={causal})"
            how = _shown(bench, call, packed)
            assert_matches(
                f"packed documents against each alone {where}", out, alone, F64_BUDGET, how
            )
            for name, ours, right in zip("qkv", grads, expected, strict=True):
                assert_gradient(f"gradient of {name}, packed {where}", ours, right, how)


def check_packed_leak(bench: Bench) -> None:
    """What changes in one packed document leaves the others bit-identical, gradients too."""
    for lengths in ROWS[:2]:
        for causal in bench.causals:
            packed = Packed(lengths)
            call = bench.inputs(packed.total, is_causal=causal, batch=1)
            module = bench.build(packed.longest).to(torch.float64).eval()
            before = _packed(bench, call, module, packed, call.leaves())
            changed = 2
            start = sum(lengths[:changed])
            inside = slice(start, start + lengths[changed])
            others = torch.ones(packed.total, dtype=torch.bool)
            others[inside] = False
            for value in (3.0, float("nan")):
                leaves = call.leaves()
                with torch.no_grad():
                    for x in leaves:
                        x[:, :, inside] = x[:, :, inside] * -2 + value
                after = _packed(bench, call, module, packed, leaves)
                for name, x, y in zip(
                    ("output", *(f"gradient of {n}" for n in "qkv")),
                    (before[0], *before[1]),
                    (after[0], *after[1]),
                    strict=True,
                ):
                    if not torch.equal(x[:, :, others], y[:, :, others]):
                        raise Violation(
                            f"packed leak: document {changed} of lengths {list(lengths)} changed "
                            f"(by {value}), and the {name} of others with it (is_causal={causal})",
                            _shown(bench, call, packed),
                        )


def _packed(
    bench: Bench, call: Inputs, module: Attention, packed: Packed, leaves: list[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the output of a packed call, and the gradients of q, k and v."""
    out = module(*leaves, **call.asks, packed=packed)
    return out.detach(), torch.autograd.grad(out, leaves, drawn(bench, out))


def _asks(call: Inputs, packed: Packed) -> list[dict[str, Any]]:
    """Return what is asked beside q, k and v, of each document."""
    cut = {n: packed.split(x, dim=2) for n, x in call.asks.items() if isinstance(x, Tensor)}
    return [
        {**call.asks, **{name: parts[at] for name, parts in cut.items()}}
        for at in range(len(packed.lengths))
    ]


def _shown(bench: Bench, call: Inputs, packed: Packed) -> str:
    return bench.show(
        call,
        f"p = attention.Packed({list(packed.lengths)})\n"
        "print(m(q, k, v, is_causal=asks['is_causal'], packed=p))\n"
        "print([m(*x, is_causal=asks['is_causal']) for x in "
        "zip(*map(p.split, (q, k, v))) if x[0].shape[2]])",
    )

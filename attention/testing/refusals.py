"""Checks of what a backend declares, and that it refuses the rest."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

import torch

from attention.base import Attention, UnsupportedError
from attention.packed import Packed
from attention.problem import Family
from attention.testing.bench import BATCH, Bench, Inputs, Violation


def check_declaration(bench: Bench) -> None:
    """The class declares family, exactness, support and exponents; options are keyword-only."""
    cls = bench.cls
    for name in ("family", "exact", "supports", "time_exponent", "memory_exponent"):
        if not hasattr(cls, name):
            raise Violation(f"{name}: not declared on the class")
    families = get_args(Family)
    if cls.family not in families:
        raise Violation(f"family: expected one of {', '.join(families)}, got {cls.family!r}")
    for name, parameter in cls.options().items():
        if parameter.kind != inspect.Parameter.KEYWORD_ONLY:
            raise Violation(f"{name}: constructor arguments must be keyword-only")
    if not (inspect.getmodule(cls).__doc__ or "").strip():
        raise Violation("its module needs a docstring: paper, equation, time and memory")


def check_refusals(bench: Bench) -> None:
    """What is not declared, and bad input, is refused by an error that names the argument."""
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
        ("packed", kind, lambda: m(c.q[:1], c.k[:1], c.v[:1], packed=[32, 33])),
        ("packed", value, lambda: m(c.q, c.k, c.v, packed=Packed([32, 33]))),
        ("packed", value, lambda: m(c.q[:1], c.k[:1], c.v[:1], packed=Packed([32, 32]))),
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

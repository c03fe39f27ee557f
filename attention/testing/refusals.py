"""Checks of what a backend declares, and that it refuses the rest."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_args

import torch

from attention.base import Attention, UnsupportedError
from attention.problem import Family
from attention.testing.bench import BATCH, Bench, Inputs, Violation


def missing(cls: type[Attention]) -> list[str]:
    """Return what a class lacks to be a backend: what it must declare, and methods."""
    declared = ("family", "exact", "supports", "time_exponent", "memory_exponent")
    lacking = [name for name in declared if not hasattr(cls, name)]
    return lacking + sorted(f"{name}()" for name in cls.__abstractmethods__)


def check_declaration(bench: Bench) -> None:
    """The class declares family, exactness, support and exponents; options are keyword-only."""
    cls = bench.cls
    if lacking := missing(cls):
        raise Violation(f"declaration: {cls.__name__} lacks {', '.join(lacking)}")
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
    if not supports.bidirectional:
        two_ways = {**call.bare, "is_causal": False}
        asked.append(
            ("bidirectional", "is_causal", lambda: module(call.q, call.k, call.v, **two_ways))
        )
    if not supports.value_dim:
        wide = torch.cat([call.v, call.v], dim=-1)
        asked.append(("value_dim", "v", lambda: module(call.q, call.k, wide, **call.bare)))
    if not supports.cross and not call.extra:
        short = call.k[:, :, :33]
        asked.append(("cross", "k", lambda: module(call.q, short, short, **call.bare)))
    if not supports.key_padding:
        mask = torch.ones(BATCH, 65, dtype=torch.bool, device=bench.device)
        asked.append(
            (
                "key_padding",
                "key_padding_mask",
                lambda: module(call.q, call.k, call.v, key_padding_mask=mask, **call.bare),
            )
        )
    if not supports.log_sum_exp:
        asked.append(
            (
                "log_sum_exp",
                "return_lse",
                lambda: module(call.q, call.k, call.v, return_lse=True, **call.bare),
            )
        )
    if not supports.state:
        asked.append(("state", "state", lambda: module.init_state(batch_size=1, max_len=65)))
    for what, argument, request in asked:
        _expect(bench, call, f"{what} is not declared", argument, (UnsupportedError,), request)
    for argument, error, request in (*_bad_calls(module, call), *_bad_inputs(module, call)):
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
    asks = c.bare

    def call(q: Any, k: Any, v: Any, **more: Any) -> Callable[[], Any]:
        return lambda: m(q, k, v, **{**asks, **more})

    q, k, v = c.q, c.k, c.v
    return [
        ("q", kind, call(q.tolist(), k, v)),
        ("q", value, call(q[0], k, v)),
        ("q", value, call(q[:, :-1], k, v)),
        ("q", value, call(q[..., :-1], k[..., :-1], v[..., :-1])),
        ("q", value, call(q[:, :, :0], k, v)),
        ("q", kind, call(q.long(), k.long(), v.long())),
        ("k", value, call(q, k[:1], v[:1])),
        ("k", value, call(q, k[:, :3], v[:, :3])),
        ("k", value, call(q, k.float(), v)),
        ("v", value, call(q, k, v[:, :, :-1])),
        ("is_causal", kind, call(q, k, v, is_causal=1)),
        ("key_padding_mask", value, call(q, k, v, key_padding_mask=mask)),
        ("key_padding_mask", kind, call(q, k, v, key_padding_mask=mask.float())),
        ("attn_mask", kind, call(q, k, v, attn_mask=None)),
    ]


def _bad_inputs(
    m: Attention, c: Inputs
) -> Iterator[tuple[str, tuple[type[Exception], ...], Callable[[], Any]]]:
    """Walk calls whose numbers of each token must be refused."""
    for name, spec in m.taken_inputs().items():
        if not spec.is_of_tokens:
            continue
        x = c.extra[name]

        def call(given: Any, name: str = name) -> Callable[[], Any]:
            return lambda: m(c.q, c.k, c.v, **{**c.bare, name: given})

        yield name, (ValueError,), call(x[:, :, :-1])
        yield name, (ValueError,), call(x[:, :-1])
        yield name, (TypeError,), call(x.long())
        yield name, (TypeError,), call(x.tolist())
        if spec.required:
            yield name, (TypeError,), call(None)
        if x.is_cpu and spec.maximum is not None:
            yield name, (ValueError,), call(x + (spec.maximum + 1.0 - x.min()))
        if x.is_cpu and spec.minimum is not None:
            yield name, (ValueError,), call(x + (spec.minimum - 1.0 - x.max()))


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

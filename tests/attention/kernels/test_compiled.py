"""The compiled kernel: every way through it against the references in float64."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import attention
from attention.functional import error_budget, expand_kv_heads, least_norms, relative_l2
from attention.kernels.compiled import library
from attention.kernels.compiled.exact import ExactPlan
from attention.kernels.compiled.table import KEPT_TILES, table_of
from attention.problem import Problem

pytestmark = pytest.mark.skipif(
    library.compiler() is None, reason="no C++ compiler on the path, and none in CXX"
)

VARIANTS: list[tuple[str, dict[str, Any], str]] = [
    ("sdpa", {}, "compiled"),
    ("sdpa", {"sink": True}, "compiled"),
    ("longformer", {"window": 8}, "compiled_band"),
    ("longformer", {"window": 1}, "compiled_band"),
    ("longformer", {"window": 40, "dilation": [1, 1, 2, 5]}, "compiled_band"),
    ("longformer", {"window": 24, "sink": True}, "compiled_band"),
    ("bigbird", {"block_size": 16, "num_random_blocks": 2}, "compiled_blocks"),
    ("bigbird", {"block_size": 7, "num_random_blocks": 1}, "compiled_square"),
    ("bigbird", {"block_size": 32, "num_global_tokens": 5}, "compiled_blocks"),
    ("performer", {"num_features": 33, "seed": 0}, "compiled_sums"),
    ("performer", {"num_features": 24, "seed": 0, "features": "relu"}, "compiled_sums"),
]
OPTIONS: dict[str, dict[str, Any]] = {
    "sdpa": {}, "longformer": {"window": 16}, "bigbird": {"block_size": 16},
    "performer": {"num_features": 40, "seed": 0},
}  # fmt: skip
HEADS = 4
INPUTS = ("output", "dq", "dk", "dv")


def draw(length: int, dim: int, dtype: torch.dtype, kv_heads: int, value_dim: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length + dim)
    shapes = [
        (2, HEADS, length, dim),
        (2, kv_heads, length, dim),
        (2, kv_heads, length, value_dim),
    ]
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


def build(name: str, dim: int, **options: Any) -> Any:
    torch.manual_seed(0)
    return attention.build(name, num_heads=HEADS, head_dim=dim, kernel="compiled", **options)


def gradients(call: Any, leaves: list[Tensor], weight: Tensor, **asks: Any) -> list[Tensor]:
    out = call(*leaves, **asks)
    return [out, *torch.autograd.grad(out, leaves, weight.to(out.dtype))]


def hold_against_reference(module: Any, inputs: list[Tensor], **asks: Any) -> None:
    """Compare output and gradients; the budget comes from the reference in this dtype."""
    wide = [x.detach().double().requires_grad_() for x in inputs]
    plain = [x.detach().float().requires_grad_() for x in inputs]
    mask = asks.get("key_padding_mask")
    keep = torch.ones(1) if mask is None else mask[:, None, :, None].double()
    shape = (*inputs[0].shape[:3], inputs[2].shape[3])
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(7)) * keep
    actual = gradients(module, inputs, weight, **asks)
    oracle = gradients(module.double().reference, wide, weight.double(), **asks)
    same = gradients(module.float().reference, plain, weight, **asks)
    k, v = (expand_kv_heads(x.detach(), HEADS) for x in wide[1:])
    terms = least_norms(k, v, module.scale, oracle[0].detach(), weight.double())
    for name, got, right, rounded in zip(INPUTS, actual, oracle, same, strict=True):
        if name == "output":
            got, right, rounded = got * keep, right * keep, rounded * keep
        assert bool(got.isfinite().all()), name
        budget = error_budget(inputs[0].dtype, relative_l2(rounded, right))
        # A gradient is a longer chain of roundings than an output; and where its terms cancel, it
        # is as exact as they are.
        least = terms.get(name, 0.0)
        error = relative_l2(got, right, least=least)
        assert error <= budget * (1 if name == "output" else 4), name


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("length", [1, 33, 150])
@pytest.mark.parametrize(("name", "options", "kernel"), VARIANTS, ids=str)
def test_it_equals_the_reference(
    name: str, options: dict[str, Any], kernel: str, length: int, padded: bool, is_causal: bool
) -> None:
    module = build(name, 16, **options)
    mask = None
    if padded:
        mask = torch.rand(2, length, generator=torch.Generator().manual_seed(length)) > 0.3
        mask[0, : length // 3] = False
        mask[1, -1] = True
    inputs = draw(length, 16, torch.float32, HEADS, 16)
    hold_against_reference(module, inputs, is_causal=is_causal, key_padding_mask=mask)
    if name == "sdpa" and length < 16:
        assert module.kernel in ("flash", "auto")  # torch's, of so few queries
    elif name == "performer" and is_causal:
        assert module.kernel == "compiled_prefix_sums"
    elif name != "bigbird" or not padded:
        assert module.kernel == kernel


@pytest.mark.parametrize("dim", [1, 17, 64, 80])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*OPTIONS])
def test_widths_and_dtypes(name: str, dtype: torch.dtype, dim: int) -> None:
    hold_against_reference(build(name, dim, **OPTIONS[name]), draw(90, dim, dtype, HEADS, dim))


@pytest.mark.parametrize("name", [*OPTIONS])
def test_heads_that_share_keys_and_heads_that_lie_side_by_side(name: str) -> None:
    inputs = [
        x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
        for x in draw(70, 32, torch.float32, 2, 32)
    ]
    hold_against_reference(build(name, 32, **OPTIONS[name]), inputs, is_causal=True)


def test_values_of_another_width_and_other_keys_than_queries() -> None:
    module = build("sdpa", 24)
    q, k, v = draw(50, 24, torch.float32, 2, 40)
    hold_against_reference(module, [q, k, v], is_causal=True)
    for longer in (80, 30):
        keys = [x.detach()[:, :, :1].repeat(1, 1, longer, 1) for x in (k, v)]
        keys = [(x + torch.randn(x.shape)).requires_grad_() for x in keys]
        hold_against_reference(module, [q, *keys], is_causal=True)
        hold_against_reference(module, [q, *keys], is_causal=False)


def test_more_columns_than_a_chunk_and_scores_that_grow_along_them() -> None:
    q, k, v = draw(2100, 16, torch.float32, HEADS, 16)
    rising = torch.linspace(0.1, 6, 2100)[:, None]
    k = (k.detach() * rising).requires_grad_()
    hold_against_reference(build("sdpa", 16), [q, k, v], is_causal=True)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(50, 120), (120, 50), (70, 70)])
def test_performer_of_other_keys_than_queries(queries: int, keys: int, is_causal: bool) -> None:
    module = build("performer", 16, **OPTIONS["performer"])
    (q, _, _), (_, k, v) = (draw(n, 16, torch.float32, HEADS, 16) for n in (queries, keys))
    hold_against_reference(module, [q, k, v], is_causal=is_causal)


@pytest.mark.parametrize("is_causal", [False, True])
def test_global_tokens(is_causal: bool) -> None:
    module = build("longformer", 16, window=8)
    inputs = draw(100, 16, torch.float32, HEADS, 16)
    tokens = torch.zeros(2, 100, dtype=torch.bool)
    tokens[:, 3] = tokens[0, 70] = True
    hold_against_reference(module, inputs, is_causal=is_causal, global_mask=tokens)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", ["sdpa", "longformer", "performer"])
def test_any_number_of_threads(name: str, threads: int) -> None:
    module = build(name, 16, **OPTIONS[name])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        hold_against_reference(module, draw(100, 16, torch.float32, 1, 16), is_causal=True)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", [*OPTIONS])
def test_second_derivatives_and_what_is_no_number(name: str) -> None:
    module = build(name, 8, **OPTIONS[name])
    inputs = draw(40, 8, torch.float32, HEADS, 8)
    grads: list[list[Tensor]] = []
    for call, leaves in (
        (module, inputs),
        (module.reference, [x.detach().double().requires_grad_() for x in inputs]),
    ):
        (first,) = torch.autograd.grad(call(*leaves).square().sum(), leaves[:1], create_graph=True)
        grads.append(list(torch.autograd.grad(first.square().sum(), leaves)))
    for got, right in zip(*grads, strict=True):
        assert relative_l2(got, right) < 1e-4
    with torch.no_grad():
        q, k, v = (x.detach().clone() for x in inputs)
        k[0, 0, 5] = float("nan")
        out = module(q, k, v)
    assert bool(out[0, 0, 5].isnan().all())
    assert bool(out[1].isfinite().all())


def test_a_window_of_the_own_key_alone_gives_its_value() -> None:
    q, k, v = (x.detach() for x in draw(50, 16, torch.float32, HEADS, 16))
    assert torch.equal(build("longformer", 16, window=0)(q, k, v), v)


@pytest.mark.parametrize("name", [*OPTIONS])
def test_no_sequence_no_real_token_and_no_values(name: str) -> None:
    module = build(name, 8, **OPTIONS[name])
    q = torch.randn(0, HEADS, 32, 8, requires_grad=True)
    out = module(q, q, q)
    out.sum().backward()
    assert q.grad is not None
    assert out.shape == q.grad.shape == (0, HEADS, 32, 8)
    q = torch.randn(1, HEADS, 32, 8)
    nothing = torch.zeros(1, 32, dtype=torch.bool)
    assert not module(q, q, q, key_padding_mask=nothing).any()
    meta = q.to("meta")
    assert module.to("meta")(meta, meta, meta).shape == q.shape
    with FakeTensorMode():
        fake, mask = torch.randn(1, HEADS, 32, 8), torch.ones(1, 32, dtype=torch.bool)
        made = build(name, 8, **OPTIONS[name])
        assert made(fake, fake, fake, key_padding_mask=mask).shape == q.shape


@pytest.mark.parametrize("name", [*OPTIONS])
def test_decoding_equals_one_causal_call(name: str) -> None:
    module = build(name, 16, **OPTIONS[name])
    q, k, v = (x.detach() for x in draw(60, 16, torch.float32, HEADS, 16))
    state = module.init_state(batch_size=2, max_len=60)
    outs = [module.prefill(q[:, :, :40], k[:, :, :40], v[:, :, :40], state)]
    outs += [module.step(*(x[:, :, t : t + 1] for x in (q, k, v)), state) for t in range(40, 60)]
    assert relative_l2(torch.cat(outs, dim=2), module(q, k, v, is_causal=True)) < 1e-6


def test_packed_documents_stay_apart() -> None:
    module = build("sdpa", 16)
    packed = attention.Packed([30, 1, 45])
    q, k, v = (x.detach()[:1] for x in draw(76, 16, torch.float32, HEADS, 16))
    out = module(q, k, v, is_causal=True, packed=packed)
    alone = module(q[:, :, 31:], k[:, :, 31:], v[:, :, 31:], is_causal=True)
    assert relative_l2(out[:, :, 31:], alone) < 1e-6


def test_the_declared_operations_are_those_of_the_tables() -> None:
    problem = Problem(
        batch=2, num_heads=HEADS, num_kv_heads=HEADS, seq_len=300, key_len=300, head_dim=16,
        is_causal=True,
    )  # fmt: skip
    for name, options in (("sdpa", {}), ("longformer", {"window": 40}), ("bigbird", {})):
        module = build(name, 16, **options)
        if name == "sdpa":
            table = table_of(ExactPlan(1, 300, 300, True))
            pairs = int((table.tiles[:, 2] * table.tiles[:, 7]).sum())
            assert module.cost(problem, "forward").executed_ops == 2 * HEADS * pairs * 2 * 32
        forward, training = (module.cost(problem, mode) for mode in ("forward", "training"))
        assert training.executed_ops * 2 == forward.executed_ops * 7
        assert forward.executed_ops >= forward.pattern_ops


def test_tables_are_kept_by_what_makes_them() -> None:
    one, two = (table_of(ExactPlan(4, 200, 200, True)) for _ in range(2))
    assert one is two
    assert table_of(ExactPlan(4, 200, 200, False)) is not one
    hidden = torch.zeros(4, 200, dtype=torch.bool)
    assert table_of(ExactPlan(4, 200, 200, True, hidden)) is not one
    groups = 2 * KEPT_TILES
    assert table_of(ExactPlan(groups, 1, 1, False)) is not table_of(ExactPlan(groups, 1, 1, False))
    tiles = one.tiles[one.tiles[:, 0] == 0]
    assert np.array_equal(tiles[:, 1], np.arange(0, 200, 32))  # every query once, in order
    assert int(tiles[:, 2].sum()) == 200


# -- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sdpa", "longformer", "bigbird"])
def test_what_it_cannot_serve_is_refused(name: str) -> None:
    module = build(name, 8, dropout_p=0.1).train()
    q = torch.randn(1, HEADS, 32, 8)
    with pytest.raises(attention.UnsupportedError, match="dropout_p: kernel 'compiled' drops no"):
        module(q, q, q)
    with pytest.raises(attention.UnsupportedError, match="dtype: kernel 'compiled' takes float32"):
        module.eval()(q.double(), q.double(), q.double())
    problem = Problem(
        batch=1, num_heads=HEADS, num_kv_heads=HEADS, seq_len=32, key_len=32, head_dim=8,
        device="cuda",
    )  # fmt: skip
    reasons = module.unsupported_reasons(problem)
    assert any("kernel: compiled runs on cpu, not on cuda" in reason for reason in reasons)


def test_sdpa_refuses_transforms_and_a_log_sum_exp() -> None:
    module, q = build("sdpa", 8), torch.randn(1, HEADS, 32, 8)
    with pytest.raises(attention.UnsupportedError, match="no transforms"):
        torch.func.vmap(lambda x: module(x, x, x))(q[None])
    with pytest.raises(attention.UnsupportedError, match="return_lse: kernel 'compiled'"):
        module(q, q, q, return_lse=True)


def test_without_a_compiler_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    q = torch.randn(1, HEADS, 32, 8)
    with pytest.raises(attention.UnsupportedError, match=r"needs a C\+\+ compiler.*kernel='auto'"):
        build("longformer", 8, window=4)(q, q, q)


def test_it_is_built_once_and_says_what_the_compiler_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[list[str]] = []
    run = subprocess.run

    def counted(words: list[str], **more: Any) -> Any:
        asked.append(words)
        return run(words, **more)

    monkeypatch.setattr(subprocess, "run", counted)
    library.library.cache_clear()
    try:
        for _ in range(2):
            library.library.cache_clear()
            library.library()
        assert sum("-o" in words for words in asked) == 1
        (built,) = (tmp_path / "attnbench").iterdir()
        assert built.name.startswith("kernels-")
        broken = tmp_path / "broken.cpp"
        broken.write_text("this is no C++\n")
        monkeypatch.setattr(library, "SOURCES", (broken,))
        library.library.cache_clear()
        with pytest.raises(attention.UnsupportedError, match=r"could not be built by .*error"):
            library.library()
        monkeypatch.setenv("XDG_CACHE_HOME", str(broken))  # a file
        with pytest.raises(attention.UnsupportedError, match="expected a folder for it in XDG"):
            library.library()
    finally:
        library.library.cache_clear()

"""Packed calls: how documents are batched, and what a call takes beside them.

That every backend attends to each document alone, the contract's checks prove.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import attention
from attention import Packed, Problem, UnsupportedError
from attention.packed import packed_cost
from attention.packed.batches import Batch, batches
from attention.testing import check

HEADS, DIM = 2, 8


def drawn(packed: Packed, *, heads: int = HEADS, **kind: Any) -> Tensor:
    generator = torch.Generator().manual_seed(packed.total + heads)
    kind.setdefault("dtype", torch.float64)
    return torch.randn(1, heads, packed.total, DIM, generator=generator, **kind)


def inputs(packed: Packed) -> list[Tensor]:
    return [drawn(packed, heads=heads)[:, :HEADS].clone() for heads in (2, 3, 4)]


def backend(name: str, **options: Any) -> attention.Attention:
    return attention.build(name, num_heads=HEADS, head_dim=DIM, **options).double()


def test_equal_documents_are_rows_and_near_ones_are_padded() -> None:
    plan = batches((4, 9, 4, 0, 8, 4), most_pairs=1000, most_padding=20)
    assert plan == [
        Batch((1, 4), width=9, is_padded=True, is_run=False),
        Batch((0, 2, 5), width=4, is_padded=False, is_run=False),
    ]
    (run,) = batches((4, 4, 4), most_pairs=48, most_padding=0)
    assert run.is_run
    assert [p.documents for p in batches((4, 4, 4), most_pairs=47, most_padding=0)] == [
        (0, 1),
        (2,),
    ]
    plan = batches((4, 4, 3, 4, 0, 4), most_pairs=1000, most_padding=None)
    assert [p.documents for p in plan] == [(0, 1), (2,), (3,), (5,)]
    assert len(batches((100, 100), most_pairs=48, most_padding=0)) == 2


def test_many_short_documents_are_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    module, packed = backend("longformer", window=4), Packed([5, 6, 7, 8] * 25)
    calls: list[int] = []
    attend = module.attend

    def counted(q: Tensor, *args: Any, **asked: Any) -> Tensor:
        calls.append(q.shape[0])
        return attend(q, *args, **asked)

    monkeypatch.setattr(module, "attend", counted)
    module(*inputs(packed), is_causal=True, packed=packed)
    assert calls == [100]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["full", "sdpa"])
def test_the_log_sum_exp_is_each_documents(name: str, causal: bool) -> None:
    packed, module = Packed([5, 17, 5, 9]), backend(name)
    q, k, v = inputs(packed)
    out, lse = module(q, k, v, is_causal=causal, return_lse=True, packed=packed)
    each = [
        module(*x, is_causal=causal, return_lse=True)
        for x in zip(*map(packed.split, (q, k, v)), strict=True)
    ]
    torch.testing.assert_close(out, torch.cat([x for x, _ in each], 2))
    torch.testing.assert_close(lse, torch.cat([x for _, x in each], 2))


@pytest.mark.parametrize("causal", [False, True])
def test_further_inputs_are_cut_with_the_documents(causal: bool) -> None:
    packed, module = Packed([12, 30, 12, 10]), backend("longformer", window=2)
    q, k, v = inputs(packed)
    triple = (v, q, k)
    mask = torch.zeros(1, packed.total, dtype=torch.bool)
    mask[0, [0, 13, 43]] = True
    out = module(q, k, v, is_causal=causal, packed=packed, global_mask=mask, global_qkv=triple)
    each = [
        module(*x[:3], is_causal=causal, global_mask=x[3], global_qkv=x[4:])
        for x in zip(
            *map(packed.split, (q, k, v)), packed.split(mask), *map(packed.split, triple),
            strict=True,
        )
    ]  # fmt: skip
    torch.testing.assert_close(out, torch.cat(each, 2))


def test_the_cost_is_that_of_the_documents() -> None:
    problem = Problem(
        batch=1, num_heads=HEADS, head_dim=DIM, seq_len=40, key_len=40, num_kv_heads=HEADS,
        is_causal=True,
    )  # fmt: skip
    module = backend("longformer", window=64)
    one, padded, whole = (
        packed_cost(module, Packed(x), problem, "training") for x in ([20, 20], [21, 19], [40])
    )
    assert whole == module.cost(problem, "training")
    assert one.pattern_ops == pytest.approx(whole.pattern_ops / 2, rel=0.05)
    assert one.bytes == padded.bytes == whole.bytes
    assert one.executed_ops / one.pattern_ops < padded.executed_ops / padded.pattern_ops
    with pytest.raises(ValueError, match=r"packed: its 2 lengths add up to 41"):
        packed_cost(module, Packed([21, 20]), problem, "forward")


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"packed": [4, 4]}, TypeError, "packed: expected attention.Packed"),
        ({"packed": Packed([4, 5])}, ValueError, "packed: its 2 lengths add up to 9, .* 8 tokens"),
        ({"key_padding_mask": torch.ones(1, 8).bool()}, ValueError, "key_padding_mask: packed"),
        ({"is_causal": 1}, TypeError, "is_causal"),
        ({"decay": 1}, TypeError, "decay: sdpa takes no such input"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, Any], error: type[Exception], named: str
) -> None:
    packed = Packed([4, 4])
    with pytest.raises(error, match=named):
        backend("sdpa")(*inputs(packed), **{"packed": packed, **change})


def test_rows_keys_and_states_are_refused() -> None:
    packed, module = Packed([4, 4]), backend("sdpa")
    q, k, v = inputs(packed)
    with pytest.raises(ValueError, match=r"packed: expected one row .* batch of 2"):
        module(*(x.expand(2, -1, -1, -1) for x in (q, k, v)), packed=packed)
    with pytest.raises(ValueError, match=r"packed: documents attend to themselves; .* M=5"):
        module(q, k[:, :, :5], v[:, :, :5], packed=packed)
    state = module.init_state(batch_size=1, max_len=8, dtype=q.dtype)
    with pytest.raises(UnsupportedError, match="packed: a state holds one sequence"):
        module.prefill(q, k, v, state, packed=packed)


def test_a_document_that_is_too_long_is_named() -> None:
    module = backend("linformer", seq_len=10, rank=4)
    packed = Packed([10, 10, 3])  # a row longer than seq_len, of documents that are not
    assert module(*inputs(packed), packed=packed).shape[2] == 23
    with pytest.raises(UnsupportedError, match=r"packed: a document of 11 tokens: .*10"):
        module(*inputs(Packed([3, 11])), packed=Packed([3, 11]))


def test_a_backend_that_sees_other_documents_fails_the_contract() -> None:
    class Leaky(attention.FullAttention):
        def forward(self, *args: Any, packed: Packed | None = None, **asked: Any) -> Any:
            return super().forward(*args, **asked)

    for name in ("packed", "packed_leak"):
        (finding,) = check(Leaky, only=name)
        assert finding.status == "failed", name


def _vmapped(module: attention.Attention, packed: Packed) -> Tensor:
    q, k, v = inputs(packed)

    def loss(*x: Tensor) -> Tensor:
        return module(*x, is_causal=True, packed=packed).sin().sum()

    three = [torch.stack([x, x * 2, x * 3]) for x in (q, k, v)]
    with warnings.catch_warnings():  # torch's own, where an operation has no rule for vmap
        warnings.filterwarnings("ignore", message="There is a performance drop")
        grad: Tensor = torch.vmap(torch.func.grad(loss))(*three)
    leaf = (q * 2).requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf, k * 2, v * 2), leaf)
    torch.testing.assert_close(grad[1], expected)
    return grad


def _autocast(module: attention.Attention, packed: Packed) -> Tensor:
    q, k, v = (x.float() for x in inputs(packed))
    with torch.autocast("cpu", torch.bfloat16):
        out: Tensor = module.float()(q, k, v, is_causal=True, packed=packed)
    assert out.dtype == torch.bfloat16
    return out


def _meta(module: attention.Attention, packed: Packed) -> Tensor:
    out: Tensor = module(*(x.to("meta") for x in inputs(packed)), packed=packed)
    assert out.shape == (1, HEADS, packed.total, DIM)
    return out


@pytest.mark.parametrize("name", ["full", "sdpa", "longformer", "bigbird"])
@pytest.mark.parametrize("way", [_vmapped, _autocast, _meta])
def test_it_composes(way: Callable[[attention.Attention, Packed], Tensor], name: str) -> None:
    way(backend(name), Packed([5, 17, 5, 9]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "sdpa", "performer"])
def test_it_compiles(name: str) -> None:
    packed, module = Packed([5, 17, 5, 9]), backend(name)
    q, k, v = inputs(packed)
    compiled = torch.compile(module, backend="aot_eager")
    out = compiled(q, k, v, is_causal=True, packed=packed)
    torch.testing.assert_close(out, module(q, k, v, is_causal=True, packed=packed))
    other = Packed([12, 12, 12])
    out = compiled(q, k, v, is_causal=True, packed=other)
    torch.testing.assert_close(out, module(q, k, v, is_causal=True, packed=other))

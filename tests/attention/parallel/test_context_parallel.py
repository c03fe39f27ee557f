"""One sequence over several ranks, by gloo: equal to one device, in the bytes foretold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import context_ranks
import pytest
import torch
import torch.distributed as dist
from context_ranks import CASES, RANKS, spans_of
from helpers_ranks import run_ranks

import attention
from attention.context_parallel import ContextParallel, split
from attention.parallel.collectives import Part

Found = list[dict[str, Any]]

RUNS = [(name, ranks) for name in CASES for ranks in range(1, RANKS + 1)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return what each of four ranks found; they run once, in processes of their own."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(context_ranks.__file__, RANKS, folder, timeout_s=300.0)
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("name", "ranks"), RUNS)
def test_outputs_and_gradients_are_those_of_one_device(found: Found, name: str, ranks: int):
    for rank in range(ranks):
        away = found[rank][f"{name}-{ranks}"]["away"]
        assert {"out", "grad_q", "grad_k", "grad_v"} <= set(away)
        assert all(value < 1e-10 for value in away.values()), (rank, away)
    if "linformer" in name and "pool" not in name:
        assert "parameter_0" in found[0][f"{name}-{ranks}"]["away"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ranks"),
    [(name, ranks) for name, ranks in RUNS if not CASES[name].masked and "global" not in name],
)
def test_bytes_are_those_of_the_formula(found: Found, name: str, ranks: int):
    counted = [found[rank][f"{name}-{ranks}"]["received"] for rank in range(ranks)]
    assert counted == [found[rank][f"{name}-{ranks}"]["foretold"] for rank in range(ranks)]
    assert (sum(counted) > 0) == (ranks > 1)
    both = [found[rank][f"{name}-{ranks}"]["both_passes"] for rank in range(ranks)]
    if "performer" in name:  # the stabilisers' gradients, zeros, go back too
        assert both == [2 * value for value in counted]
    elif found[0][f"{name}-{ranks}"]["kernel"].startswith("ring"):
        # Back, the keys go round once more, and their gradients till they are home again.
        assert sum(both) * (ranks - 1) == sum(counted) * (3 * ranks - 2)
    else:  # what one rank got, its gradient brings back to another
        assert 1.5 * sum(counted) <= sum(both) <= 2 * sum(counted)


@pytest.mark.slow
def test_sdpa_goes_round_a_ring_where_torch_can(found: Found):
    for name in CASES:
        for ranks in range(1, RANKS + 1):
            if name.startswith("sdpa"):
                serves = "equal" in name and "masked" not in name and ranks > 1
                kernel = found[0][f"{name}-{ranks}"]["kernel"]
                assert kernel == ("ring_of_flash_for_cpu" if serves else "flash"), (name, ranks)


@pytest.mark.parametrize("name", ["performer", "longformer", "linformer"])
def test_bytes_do_not_grow_with_the_length(name: str):
    """Of the methods that are said not to: by the formula, which is held against the count."""
    options = {"linformer": {"seq_len": 1 << 20}}.get(name, {})
    with torch.device("meta"):
        module = attention.build(name, num_heads=8, head_dim=64, **options)

    def received(length: int) -> int:
        quarter = length // 4
        x = torch.empty(1, 8, length, 64, device="meta")
        spans = [(at, at + quarter) for at in range(0, length, quarter)]
        return module.exchange_bytes(attention.Problem.of(x, x), spans, 1)

    assert received(1 << 14) == received(1 << 18) > 0


@pytest.mark.slow
def test_the_ranks_must_call_alike(found: Found):
    for rank in range(RANKS):
        causal, mask = found[rank]["disagree"]
        assert causal == "is_causal: expected the same on all ranks, got [1, 0, 0, 0]"
        assert mask == "key_padding_mask: expected the same on all ranks, got [1, 0, 0, 0]"


@pytest.mark.slow
def test_the_ranks_must_hold_equal_parameters(found: Found):
    for rank in range(RANKS):
        said = found[rank]["unequal"]
        assert said.startswith("attention: expected equal parameters and buffers on all ranks")
        assert "those of rank 1, 2, 3 are not rank 0's" in said


@pytest.mark.slow
def test_half_precision(found: Found):
    for rank in range(RANKS):
        sdpa, performer, longformer, pooled = found[rank]["half"]
        assert max(sdpa, longformer, pooled) < 0.02
        assert performer < 0.05


@pytest.mark.slow
def test_where_one_rank_calls_otherwise_all_of_them_raise(found: Found):
    for rank in range(RANKS):
        refused, gradient, dtype, options = found[rank]["one_apart"]
        if rank == 2:
            assert refused == "key_padding_mask: expected shape (1, 3), got (1, 2)"
        else:
            assert refused == "group: the call was refused on rank 2"
        assert gradient == "requires_grad: expected the same on all ranks, got [0, 7, 0, 0]"
        assert dtype.startswith("q.dtype: expected the same on all ranks")
        assert options.startswith("attention: expected the same on all ranks")


@pytest.mark.slow
def test_ranks_drop_weights_of_their_own(found: Found):
    outs = {tuple(found[rank]["dropped"]) for rank in range(RANKS)}
    assert len(outs) == RANKS


@pytest.mark.slow
def test_second_derivatives_are_refused(found: Found):
    for rank in range(RANKS):
        for said in found[rank]["twice"]:  # by the ring, by fetching, by sums over keys
            assert said.startswith("create_graph: a sequence cut over ranks has first derivatives")


def test_kernels_that_cannot_serve_parts_are_refused():
    tiled = attention.build("performer", num_heads=4, head_dim=8, kernel="tiled")
    with pytest.raises(attention.UnsupportedError, match=r"kernel: .* got tiled"):
        ContextParallel(tiled)


EVEN, UNEVEN = [(0, 64), (64, 128)], [(0, 65), (65, 128)]


@pytest.mark.parametrize(
    ("kernel", "changes", "spans", "expected"),
    [
        ("auto", {}, EVEN, "flash"),
        ("flash", {}, EVEN, "flash"),
        ("auto", {"dtype": torch.float32}, EVEN, "efficient"),
        ("auto", {"dtype": torch.float32}, [(0, 63), (63, 126)], None),  # no whole blocks
        ("auto", {"dtype": torch.float64}, EVEN, None),
        ("auto", {"head_dim": 20}, EVEN, None),
        ("auto", {"head_dim": 512}, EVEN, "efficient"),
        ("efficient", {}, EVEN, "efficient"),
        ("math", {}, EVEN, None),
        ("cudnn", {}, EVEN, None),
        ("auto", {"key_padding": True}, EVEN, None),
        ("auto", {}, UNEVEN, None),
        ("auto", {}, [(0, 128)], None),
        ("math", {"device": "cpu"}, EVEN, None),
        ("auto", {"device": "cpu", "dtype": torch.float64}, EVEN, "flash_for_cpu"),
    ],
)
def test_which_kernel_a_ring_runs(
    kernel: Any, changes: dict[str, Any], spans: Any, expected: str | None
):
    module = attention.build("sdpa", num_heads=4, head_dim=8, kernel=kernel)
    problem = attention.Problem(
        batch=1, num_heads=4, head_dim=64, seq_len=128, key_len=128, num_kv_heads=4,
        dtype=torch.bfloat16, device="cuda",
    )  # fmt: skip
    assert module.ring_kernel(replace(problem, **changes), spans) == expected


def test_dropout_and_other_computations_go_round_no_ring():
    class Own(attention.SDPAAttention):
        def attend(self, *inputs: Any, **asked: Any) -> Any:
            return super().attend(*inputs, **asked) + 1

    x = torch.empty(1, 4, 128, 8)
    problem = attention.Problem.of(x, x)
    dropping = attention.build("sdpa", num_heads=4, head_dim=8, dropout_p=0.5)
    assert dropping.ring_kernel(problem, EVEN) is None
    assert dropping.eval().ring_kernel(problem, EVEN) == "flash_for_cpu"
    assert Own(num_heads=4, head_dim=8).ring_kernel(problem, EVEN) is None


def test_pinned_flash_is_refused_where_a_gpu_would_need_a_mask():
    flash = attention.build("sdpa", num_heads=4, head_dim=8, kernel="flash")

    class OnGPU:  # what is asked before any kernel runs
        shape, dtype, device = (1, 4, 65, 8), torch.bfloat16, torch.device("cuda")

    exchange = SimpleNamespace(spans=UNEVEN, total_length=128)
    q: Any = OnGPU()
    with pytest.raises(attention.UnsupportedError, match="which flash does not take on cuda"):
        flash.attend_across(Part(q, q, q, exchange, is_causal=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kernel", ["flash", "efficient"])
def test_kernels_of_a_gpu_take_what_the_ring_hands_them(kernel: str, causal: bool):
    """On tensors without contents, over a group without transport: shapes and signatures."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from attention.parallel.ring import ring_attention

    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        q, k, v = (
            torch.empty(2, h, 64, 32, device="meta", dtype=torch.bfloat16, requires_grad=True)
            for h in (4, 2, 2)
        )
        exchange: Any = SimpleNamespace(group=None, received=0)
        out = ring_attention(q, k, v, exchange, kernel=kernel, is_causal=causal, scale=0.1)
        assert (out.shape, out.dtype) == (q.shape, q.dtype)
        keys = 2 * k.numel() * 2
        assert exchange.received == keys
        out.sum().backward()
        assert [x.grad.shape for x in (q, k, v)] == [x.shape for x in (q, k, v)]
        assert exchange.received == keys + keys + 2 * 2 * keys  # gradients, in float32
    finally:
        dist.destroy_process_group()


def test_spans_may_be_uneven():
    uneven = {name: spans_of(ask, 4) for name, ask in CASES.items() if ask.uneven}
    assert len(uneven) > 5
    for spans in uneven.values():
        assert {stop - start for start, stop in spans} == {3, 20, 1, 13}


# -- one rank, in this process --------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'x'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_bigbird_is_refused_with_the_reason():
    bigbird = attention.build("bigbird", num_heads=4, head_dim=8)
    with pytest.raises(attention.UnsupportedError, match=r"bigbird .* random blocks lie anywhere"):
        ContextParallel(bigbird)


def test_without_a_group_it_is_said_how_to_get_one():
    with pytest.raises(RuntimeError, match=r"group: .* torchrun"):
        ContextParallel(attention.build("sdpa", num_heads=4, head_dim=8))


def test_what_is_no_backend_is_misuse():
    with pytest.raises(TypeError, match="attention: expected a backend, got Linear"):
        ContextParallel(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_misuse_of_a_call_names_the_argument(alone: None):
    layer = ContextParallel(attention.build("linformer", num_heads=4, head_dim=8, seq_len=8))
    x, more = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 9, 8)
    with pytest.raises(ValueError, match="k: expected the 8 tokens of q, got 9"):
        layer(x, more, more)
    with pytest.raises(attention.UnsupportedError, match="is_causal: linformer is bidirectional"):
        layer(x, x, x, is_causal=True)
    with pytest.raises(attention.UnsupportedError, match="built for seq_len 8, got M=9"):
        layer(more, more, more)
    with pytest.raises(TypeError, match="global_mask: linformer takes no such input"):
        layer(x, x, x, global_mask=torch.ones(1, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"key_padding_mask: expected shape \(1, 8\)"):
        layer(x, x, x, key_padding_mask=torch.ones(1, 7, dtype=torch.bool))
    with pytest.raises(TypeError, match="is_causal: expected a bool, got int"):
        layer(x, x, x, is_causal=1)
    with pytest.raises(ValueError, match="x: expected at least 1 tokens, one a rank, got 0"):
        split(x[:, :, :0])
    assert layer(x, x, x).shape == x.shape
    assert layer.received == 0
    layer.attention.register_parameter("temperature", torch.nn.Parameter(torch.tensor(1.0)))
    assert ContextParallel(layer.attention)(x, x, x).shape == x.shape  # a scalar has bytes too


def test_autocast_is_that_of_a_backend(alone: None):
    module = attention.build("performer", num_heads=4, head_dim=8, seed=0, kernel="chunked")
    x = torch.randn(1, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, plain = ContextParallel(module)(x, x, x), module(x, x, x)
    assert out.dtype == plain.dtype == torch.bfloat16
    assert float((out - plain).abs().max()) < 0.02

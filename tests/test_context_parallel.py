"""One sequence over several ranks, by gloo: equal to one device, in the bytes foretold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import context_ranks
import pytest
import torch
import torch.distributed as dist
from context_ranks import CASES, RANKS, spans_of

import attention
from attention.context_parallel import ContextParallel, split

Found = list[dict[str, Any]]

RUNS = [(name, ranks) for name in CASES for ranks in range(1, RANKS + 1)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return what each of four ranks found; they run once, in processes of their own."""
    folder = tmp_path_factory.mktemp("ranks")
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, context_ranks.__file__, str(rank), str(RANKS), str(folder)],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(RANKS)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=300)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0] * RANKS, "\n".join(said)
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("name", "ranks"), RUNS)
def test_outputs_and_gradients_are_those_of_one_device(found: Found, name: str, ranks: int):
    for rank in range(ranks):
        away = found[rank][f"{name}-{ranks}"]["away"]
        assert {"out", "grad_q", "grad_k", "grad_v"} <= set(away)
        assert all(value < 1e-10 for value in away.values()), (rank, away)
    if "linformer" in name and "pool" not in name:
        assert "parameter_0" in found[0][f"{name}-{ranks}"]["away"]


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
    else:  # what one rank got, its gradient brings back to another
        assert 1.5 * sum(counted) <= sum(both) <= 2 * sum(counted)


@pytest.mark.parametrize("name", ["performer", "longformer", "linformer"])
def test_bytes_do_not_grow_with_the_length(name: str):
    """Of the methods that are said not to: by the formula, which is held against the count."""
    options = {"linformer": {"seq_len": 1 << 20}}.get(name, {})
    module = attention.build(name, num_heads=8, head_dim=64, **options)

    def received(length: int) -> int:
        quarter = length // 4
        x = torch.empty(1, 8, length, 64, device="meta")
        spans = [(at, at + quarter) for at in range(0, length, quarter)]
        return module.exchange_bytes(attention.Problem.of(x, x), spans, 1)

    assert received(1 << 14) == received(1 << 18) > 0


def test_the_ranks_must_call_alike(found: Found):
    for rank in range(RANKS):
        causal, mask = found[rank]["disagree"]
        assert causal == "is_causal: expected the same on all ranks, got [1, 0, 0, 0]"
        assert mask == "key_padding_mask: expected the same on all ranks, got [1, 0, 0, 0]"


def test_the_ranks_must_hold_equal_parameters(found: Found):
    for rank in range(RANKS):
        said = found[rank]["unequal"]
        assert said.startswith("attention: expected equal parameters and buffers on all ranks")
        assert "those of rank 1, 2, 3 are not rank 0's" in said


def test_half_precision(found: Found):
    for rank in range(RANKS):
        sdpa, performer, longformer, pooled = found[rank]["half"]
        assert max(sdpa, longformer, pooled) < 0.02
        assert performer < 0.05


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


def test_ranks_drop_weights_of_their_own(found: Found):
    outs = {tuple(found[rank]["dropped"]) for rank in range(RANKS)}
    assert len(outs) == RANKS


def test_kernels_that_cannot_serve_parts_are_refused():
    tiled = attention.build("performer", num_heads=4, head_dim=8, kernel="tiled")
    with pytest.raises(attention.UnsupportedError, match=r"kernel: .* got tiled"):
        ContextParallel(tiled)
    flash = attention.build("sdpa", num_heads=4, head_dim=8, kernel="flash")
    x = torch.empty(1, 4, 8, 8, device="meta")
    problem = attention.Problem.of(x, x, is_causal=True)
    (why,) = flash.across_reasons(replace(problem, device="cuda"))
    assert "flash does not take on cuda" in why
    assert flash.across_reasons(replace(problem, device="cpu")) == []


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

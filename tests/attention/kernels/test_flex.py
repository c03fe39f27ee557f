"""Block-sparse attention by FlexAttention: the lists on any machine, the kernel on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_covering import covering
from helpers_flex import dense_tiles, without_kernel
from torch import Tensor

import attention
from attention.backends.bigbird.flex_tiles import block_tiles
from attention.backends.bigbird.grid import BlockGrid, random_blocks
from attention.backends.longformer.flex_tiles import TILE, band_mask, band_tiles
from attention.functional import error_budget, relative_l2
from attention.kernels import flex
from attention.kernels.flex_tiles import RUN, ExtraColumns, TileLists, by_column, by_row
from attention.testing import assert_matches, check

CPU = torch.device("cpu")
LENGTHS = (1, TILE - 1, TILE, TILE + 1, 2 * TILE, 5 * TILE + 44)
WINDOWS = (0, 1, TILE - 1, TILE, TILE + 1, 2 * TILE, 400, 5000)


def bytes_of(lists: TileLists | None) -> int:
    if lists is None:
        return 0
    tensors = (lists.counts, lists.indices)
    return sum(x.untyped_storage().nbytes() for x in tensors)


# -- lists ----------------------------------------------------------------------------------------


@covering(
    ("length", LENGTHS), ("window", WINDOWS), ("causal", [False, True]), ("masked", [False, True])
)
def test_band_lists_hold_the_tiles_of_the_band_and_no_other(
    length: int, window: int, causal: bool, masked: bool
) -> None:
    tiles = band_tiles(length, window, causal, masked, None, CPU)
    partial = dense_tiles(tiles.partial, tiles.partial)[0, 0]
    full = dense_tiles(tiles.full, tiles.partial)[0, 0]
    rows = -(-length // TILE)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    band = (distance <= window) & (distance >= (0 if causal else -window))
    padded = torch.nn.functional.pad(band, (0, rows * TILE - length) * 2)
    parts = padded.view(rows, TILE, rows, TILE).transpose(1, 2).flatten(2)
    assert torch.equal(partial | full, parts.any(dim=2))
    whole = parts.all(dim=2) if not masked else torch.zeros_like(full)
    # A last row of queries that ends early may read a tile whole, too.
    assert torch.equal(full[: rows - 1], whole[: rows - 1])
    assert bool((whole[rows - 1 :] <= full[rows - 1 :]).all())
    assert not bool((partial & full).any())
    assert torch.equal(dense_tiles(tiles.partial_by_key, tiles.partial_by_key)[0, 0].T, partial)


@pytest.mark.parametrize("causal", [False, True])
def test_torchs_block_mask_reads_the_lists_as_meant(causal: bool) -> None:
    tiles = band_tiles(700, 150, causal, False, None, CPU)
    mask = tiles.block_mask(band_mask(150, causal, 1, None, None, None))
    found = dense_tiles(tiles.partial, tiles.partial) | dense_tiles(tiles.full, tiles.partial)
    assert torch.equal(mask.to_dense().bool(), found)
    assert mask.shape == (1, 1, 700, 700)


def test_rows_and_columns_are_transposes() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(2, 3, 9, 13, generator=generator) < 0.3
    dense[0, 0, 4] = False
    dense[:, :, :, 7] = False
    tiles = torch.where(dense, torch.arange(13), -1)
    rows, columns = by_row(tiles, 13), by_column(tiles, 13)
    assert torch.equal(dense_tiles(rows, rows), dense)
    assert torch.equal(dense_tiles(columns, columns).mT, dense)
    assert rows.indices.shape == (2, 3, 9, 13)
    assert columns.indices.shape == (2, 3, 13, 9)
    assert rows.indices.stride(3) == 1
    assert rows.indices.stride(0) == 3 * rows.indices.stride(1)  # torch's kernels rely on it


def test_lists_of_a_million_tokens_grow_with_the_rows_alone() -> None:
    small, large = (band_tiles(n, 256, False, False, None, CPU) for n in (2**17, 2**20))
    held = [
        sum(bytes_of(x) for x in (t.partial, t.partial_by_key, t.full, t.full_by_key))
        for t in (small, large)
    ]
    assert held[1] <= 9 * held[0]
    assert large.partial.indices.shape[-2:] == (8192, 8192)  # as torch asks, without the memory
    assert held[1] < 8192 * 8192 / 64


def test_lists_of_random_blocks_at_a_million_tokens_hold_no_square() -> None:
    n, heads = 2**20, 2
    grid = BlockGrid(n, 64, 0, False)
    random = random_blocks(grid, heads, 3, seed=0)
    tiles = block_tiles(grid, [grid], [random], holes=False, device=CPU)
    lists = (tiles.partial, tiles.partial_by_key, tiles.full, tiles.full_by_key)
    assert sum(bytes_of(x) for x in lists) < heads * grid.blocks * 4 * 200
    assert int(tiles.partial_by_key.counts.max()) <= RUN


def test_no_column_of_extra_keys_is_read_by_more_than_a_run_of_rows() -> None:
    extra = ExtraColumns(TILE, 5 * RUN + 3, 200)
    tiles = band_tiles(extra.rows * TILE, 100, False, True, extra, CPU)
    assert int(tiles.partial_by_key.counts.max()) <= RUN
    assert int(tiles.partial_by_key.counts[..., extra.rows :].sum()) == 2 * extra.rows


def test_lists_are_cached_and_serve_training_after_inference() -> None:
    with torch.inference_mode():
        tiles = band_tiles(999, 77, False, False, None, CPU)
    assert band_tiles(999, 77, False, False, None, CPU) is tiles
    for lists in (tiles.partial, tiles.partial_by_key):
        assert not lists.counts.is_inference()
        assert not lists.indices.is_inference()
    limit = band_tiles.cache_info().maxsize
    assert limit is not None
    assert limit < 1000


# -- the whole path but the kernel ----------------------------------------------------------------

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("longformer", {"window": 8}),
    ("longformer", {"window": 0}),
    ("longformer", {"window": 200}),
    ("longformer", {"window": 5, "dilation": 3}),
    ("longformer", {"window": 4, "dilation": [1, 1, 2, 5]}),
    ("bigbird", {"block_size": 32}),
    ("bigbird", {"block_size": 32, "num_random_blocks": 0, "num_global_tokens": 5}),
    ("bigbird", {"block_size": 32, "num_random_blocks": 5, "seed": 9}),
    ("bigbird", {"block_size": 64, "num_global_tokens": 300}),
]
CHECKS = (
    "shapes",
    "reference",
    "gradients",
    "future",
    "padding",
    "batch",
    "determinism",
    "refusals",
)


@pytest.mark.parametrize("what", CHECKS)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_lists_and_masks_keep_the_contract(
    name: str, options: dict[str, Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_kernel(monkeypatch)
    (finding,) = check(name, options={**options, "kernel": "flex"}, only=what)
    assert finding.status == "passed", f"{finding.message}\n{finding.how}"


@covering(
    ("share", [0.0, 0.02, 0.6]),
    ("causal", [False, True]),
    ("padding", [False, True]),
    ("dilation", [1, 3, [1, 1, 2, 2]]),
)
def test_global_tokens_equal_reference(
    dilation: int | list[int], causal: bool, padding: bool, share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    without_kernel(monkeypatch)
    n, width = 300, 8
    module = attention.LongformerAttention(
        num_heads=4, head_dim=width, window=7, dilation=dilation, kernel="flex"
    )

    def draw() -> list[Tensor]:
        shapes = [(2, heads, n, width) for heads in (4, 2, 2)]
        return [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]

    inputs, own = draw(), draw()
    real = torch.rand(2, n) < 0.7 if padding else torch.ones(2, n, dtype=torch.bool)
    asks: dict[str, Any] = {
        "is_causal": causal,
        "key_padding_mask": real if padding else None,
        "global_mask": torch.rand(2, n) < share,
        "global_qkv": tuple(own),
    }
    keep = real[:, None, :, None]
    actual, expected = module(*inputs, **asks), module.reference(*inputs, **asks)
    assert module.kernel == "flex_band"
    assert_matches("output", actual * keep, expected * keep, 1e-9)
    weight = torch.randn_like(expected) * keep
    got = torch.autograd.grad(actual, inputs, weight)
    want = torch.autograd.grad(expected, inputs, weight)
    for which, a, b in zip("qkv", got, want, strict=True):
        assert_matches(f"gradient of {which}", a, b, 1e-7)


def test_random_blocks_that_are_read_are_those_of_the_pattern(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_kernel(monkeypatch)
    q, k, v = (torch.randn(1, 4, 32 * 40 + 5, 16) for _ in range(3))
    tiled, by_flex = (
        attention.BigBirdAttention(num_heads=4, head_dim=16, block_size=32, seed=3, kernel=kernel)
        for kernel in ("tiled", "flex")
    )
    assert_matches("output", by_flex(q, k, v), tiled(q, k, v), 1e-5)
    assert by_flex.kernel == "flex_blocks"
    other = attention.BigBirdAttention(
        num_heads=4, head_dim=16, block_size=32, seed=4, kernel="flex"
    )
    assert relative_l2(other(q, k, v), tiled(q, k, v)) > 1e-2


# -- what is chosen and what is refused -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "on_cpu", "on_cuda"),
    [
        ("longformer", "tiled", "flex"),
        ("bigbird", "tiled", "flex"),
        ("performer", "tiled", "chunked"),
    ],
)
def test_auto_is_decided_by_the_device_alone(name: str, on_cpu: str, on_cuda: str) -> None:
    module: Any = attention.build(name, num_heads=4, head_dim=16)
    assert (module.kernel_on("cpu"), module.kernel_on("cuda")) == (on_cpu, on_cuda)
    for kernel in ("tiled", on_cuda):
        pinned: Any = attention.build(name, num_heads=4, head_dim=16, kernel=kernel)
        assert pinned.kernel_on("cpu") == pinned.kernel_on("cuda") == kernel
        assert f"kernel='{kernel}'" in repr(pinned)
        assert pinned.kernel == ""


def problem(**more: Any) -> attention.Problem:
    common: dict[str, Any] = {
        "batch": 1, "num_heads": 4, "head_dim": 16, "seq_len": 64, "key_len": 64,
        "num_kv_heads": 4,
    }  # fmt: skip
    return attention.Problem(**{**common, **more})


@pytest.mark.parametrize("name", ["longformer", "bigbird"])
def test_what_flex_cannot_serve_is_refused_and_names_the_other_kernel(name: str) -> None:
    module = attention.build(name, num_heads=4, head_dim=16, kernel="flex", dropout_p=0.1)
    refused = {
        "dropout_p": module.train().unsupported_reasons(problem()),
        "dtype": module.eval().unsupported_reasons(problem(dtype=torch.float64)),
        "head_dim": module.unsupported_reasons(problem(device="cuda", head_dim=8)),
    }
    for argument, reasons in refused.items():
        (reason,) = (r for r in reasons if r.startswith(argument))
        assert "kernel='tiled' serves it" in reason
    tiled = attention.build(name, num_heads=4, head_dim=16, kernel="tiled", dropout_p=0.1)
    assert tiled.train().unsupported_reasons(problem(dtype=torch.float64)) == []


def test_flex_refuses_blocks_that_are_no_tiles() -> None:
    module = attention.BigBirdAttention(num_heads=4, head_dim=16, block_size=20, kernel="flex")
    q, k, v = (torch.randn(1, 4, 64, 16) for _ in range(3))
    with pytest.raises(attention.UnsupportedError, match=r"block_size: .* multiple of 32, got 20"):
        module(q, k, v)


@pytest.mark.parametrize("name", ["longformer", "bigbird"])
def test_flex_refuses_a_backward_pass_on_a_cpu(name: str) -> None:
    module = attention.build(name, num_heads=4, head_dim=16, kernel="flex")
    q, k, v = (torch.randn(1, 4, 200, 16, requires_grad=True) for _ in range(3))
    with pytest.raises(attention.UnsupportedError, match="kernel: 'flex' has no backward pass"):
        module(q, k, v)


def test_flex_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    module = attention.LongformerAttention(num_heads=4, head_dim=16, kernel="flex")
    reasons = module.unsupported_reasons(problem())
    assert any("C++ compiler" in reason for reason in reasons)


@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize("name", ["longformer", "bigbird"])
def test_cost_counts_the_tiles_that_are_covered(name: str, mode: Any) -> None:
    tiled, by_flex = (
        attention.build(name, num_heads=4, head_dim=16, kernel=kernel).cost(
            problem(seq_len=4096, key_len=4096), mode
        )
        for kernel in ("tiled", "flex")
    )
    assert by_flex.pattern_ops == tiled.pattern_ops
    assert by_flex.exponentials == tiled.exponentials
    assert by_flex.pattern_ops <= by_flex.executed_ops < 3 * by_flex.pattern_ops


# -- the compiled call, on a CPU ------------------------------------------------------------------


def test_compiled_callables_are_bounded_and_do_not_share_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []

    def compiler(function: Any, **options: Any) -> Any:
        assert options == {"dynamic": False, "fullgraph": True, "options": None}
        made.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(flex, "COMPILED", 3)
    monkeypatch.setattr(flex, "_callables", type(flex._callables)())
    for key in (1, 2, 3, 1, 4, 1):
        flex._compiled(key)
    assert list(flex._callables) == [3, 4, 1]
    assert len({id(function.__code__) for function in made}) == len(made) == 4


COMPILED: list[tuple[str, dict[str, Any], torch.dtype, bool]] = [
    ("longformer", {"window": 20, "dilation": [1, 1, 2, 2]}, torch.float32, False),
    ("bigbird", {"block_size": 32, "num_global_tokens": 3}, torch.bfloat16, True),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch
def test_a_second_call_of_the_same_key_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    if reasons := flex.flex_reasons(problem(), dropout_p=0.0):
        pytest.skip("; ".join(reasons))
    from torch._dynamo.utils import counters

    monkeypatch.setattr(flex, "_callables", type(flex._callables)())
    counters.clear()
    module = attention.LongformerAttention(num_heads=2, head_dim=16, window=30, kernel="flex")
    compiled = []
    for tokens in (1, 3, 20):  # other masks, other global tokens, the same code
        q, k, v = (torch.randn(2, 2, 290, 16) for _ in range(3))
        asks = {
            "key_padding_mask": torch.arange(290) < torch.tensor([290 - tokens, 250])[:, None],
            "global_mask": (torch.arange(290) < tokens).expand(2, -1),
        }
        with torch.inference_mode():
            module(q, k, v, **asks)
        compiled.append(counters["stats"]["unique_graphs"])
    assert compiled[0] >= 1
    assert compiled[0] == compiled[1] == compiled[2]
    assert len(flex._callables) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch
def test_each_scale_has_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    if reasons := flex.flex_reasons(problem(), dropout_p=0.0):
        pytest.skip("; ".join(reasons))
    monkeypatch.setattr(flex, "_callables", type(flex._callables)())
    q, k, v = (torch.randn(1, 2, 290, 16) for _ in range(3))
    for scale in (0.1, 0.7, 0.1):
        module = attention.LongformerAttention(
            num_heads=2, head_dim=16, window=30, scale=scale, kernel="flex"
        )
        with torch.inference_mode():
            assert_matches("output", module(q, k, v), module.reference(q, k, v), 1e-5)
    assert len(flex._callables) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Dynamo")  # torch's, of torch
@pytest.mark.parametrize("name", ["longformer", "bigbird"])
def test_within_a_compiled_module_the_kernel_is_the_compiled_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch warns where FlexAttention runs uncompiled, and a warning is an error here."""
    if reasons := flex.flex_reasons(problem(), dropout_p=0.0):
        pytest.skip("; ".join(reasons))
    monkeypatch.setattr(flex, "_callables", type(flex._callables)())
    module = attention.build(name, num_heads=2, head_dim=16, kernel="flex")
    q, k, v = (torch.randn(1, 2, 600, 16) for _ in range(3))
    with torch.no_grad():
        out = torch.compile(module)(q, k, v)
    assert_matches("output", out, module.reference(q, k, v), 1e-5)
    assert len(flex._callables) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch
@pytest.mark.parametrize(("name", "options", "dtype", "causal"), COMPILED, ids=str)
def test_compiled_kernel_equals_reference(
    name: str, options: dict[str, Any], dtype: torch.dtype, causal: bool
) -> None:
    module = attention.build(name, num_heads=4, head_dim=32, kernel="flex", **options)
    if reasons := flex.flex_reasons(problem(dtype=dtype), dropout_p=0.0):
        pytest.skip("; ".join(reasons))
    n = 300
    q = torch.randn(3, 4, n, 32).to(dtype)
    k, v = (torch.randn(3, 2, n, 32).to(dtype) for _ in range(2))
    real = torch.rand(3, n) < 0.7
    real[1, :100] = False
    real[2] = False  # no key at all: zeros
    asks: dict[str, Any] = {"is_causal": causal, "key_padding_mask": real}
    if name == "longformer":
        asks["global_mask"] = torch.rand(3, n) < 0.05
    with torch.inference_mode():
        out = module(q, k, v, **asks)
    oracle = module.reference(q.double(), k.double(), v.double(), **asks)
    plain = module.reference(q.float(), k.float(), v.float(), **asks)
    keep = real[:, None, :, None]
    budget = error_budget(dtype, relative_l2(plain * keep, oracle * keep))
    assert out.dtype == dtype
    assert bool(out.isfinite().all())
    assert bool((out[2] == 0).all())
    assert_matches("compiled", out * keep, oracle * keep, budget)

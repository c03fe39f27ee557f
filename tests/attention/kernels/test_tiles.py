"""The engines behind the backends: every kind of batch, on scratch memory full of NaN.

Small budgets and tiles bring the batches along the sequence, of which a short input has none by
default, down to lengths that the dense reference can check.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_covering import covering
from torch import Tensor

import attention
from attention.backends.longformer import tiles as longformer
from attention.base import Attention
from attention.functional import error_budget, relative_l2
from attention.kernels import tiled
from attention.kernels import tiles as kernel_tiles
from attention.kernels.linear import causal_walk, tile_work
from attention.kernels.tiles import chunks

HEADS, DIM = 2, 8


@pytest.fixture(autouse=True)
def scratch_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every uninitialised tensor hold NaN: what is read before it is written shows."""

    def poison(owner: Any, name: str) -> None:
        make = getattr(owner, name)

        def poisoned(*args: Any, **kwargs: Any) -> Tensor:
            made: Tensor = make(*args, **kwargs)
            return made.fill_(float("nan")) if made.is_floating_point() else made

        monkeypatch.setattr(owner, name, poisoned)

    poison(torch, "empty")
    poison(torch, "empty_like")
    poison(Tensor, "new_empty")
    for scratch in (torch.empty(3), torch.empty_like(torch.ones(3)), torch.ones(1).new_empty(3)):
        assert scratch.isnan().all()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for budget in (tiled.FORWARD_BYTES, tiled.BACKWARD_BYTES):
        monkeypatch.setitem(budget, "cpu", 6000)
    monkeypatch.setitem(longformer.TILE_ROWS, "cpu", 4)
    monkeypatch.setattr(kernel_tiles, "DENSE_ROWS", 8)
    monkeypatch.setattr(tile_work, "TILE_FEATURES", 16)  # then 16 tokens, the fewest
    monkeypatch.setattr(causal_walk, "CHUNK_SIZES", (8, 8))


CASES: list[tuple[str, dict[str, Any]]] = [
    ("longformer", {"window": 0}),
    ("longformer", {"window": 3}),
    ("longformer", {"window": 8}),
    ("longformer", {"window": 5, "dilation": (1, 3)}),
    ("longformer", {"window": 100}),
    ("bigbird", {"block_size": 4, "num_random_blocks": 2}),
    ("bigbird", {"block_size": 5, "num_random_blocks": 0}),
    ("bigbird", {"block_size": 4, "num_random_blocks": 1, "num_global_tokens": 3}),
    ("linformer", {"seq_len": 200, "rank": 12}),
    ("linformer", {"seq_len": 200, "rank": 12, "sharing": "none"}),
    ("linformer", {"seq_len": 200, "rank": 40, "method": "mean_pool"}),
    ("performer", {"num_features": 24, "seed": 1}),
    ("performer", {"num_features": 24, "seed": 1, "features": "relu"}),
]
IDS = [f"{name}-{'-'.join(f'{k}={v}' for k, v in o.items())}" for name, o in CASES]


def build(name: str, options: dict[str, Any], heads: int = HEADS) -> Attention:
    if "dilation" in options and heads == 1:
        options = {**options, "dilation": 3}
    torch.manual_seed(0)
    return attention.build(name, num_heads=heads, head_dim=DIM, **options)


def results(
    module: Attention,
    inputs: tuple[Tensor, ...],
    run: str,
    rounded: torch.dtype = torch.float64,
    **call: Any,
) -> list[Tensor]:
    """Return the output and all gradients of a weighted sum of it.

    Six inputs are q, k, v and the projections of Longformer's global tokens. The weights are
    rounded to `rounded` and to the output's dtype.
    """
    leaves = [x.clone().requires_grad_() for x in inputs]
    parameters = list(module.parameters())
    own = {"global_qkv": tuple(leaves[3:])} if len(leaves) > 3 else {}
    out = (module if run == "fast" else module.reference)(*leaves[:3], **call, **own)
    mask = call.get("key_padding_mask")
    if mask is not None and not module.supports.cross:  # at a padded query it is unspecified
        out = out.where(mask[:, None, :, None], 0.0)
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).sin().view_as(out)
    total = (out * weight.to(rounded).to(out.dtype)).sum()
    return [out, *torch.autograd.grad(total, [*leaves, *parameters])]


def float32_results(module: Attention, inputs: tuple[Tensor, ...], **call: Any) -> list[Tensor]:
    """Return those of the reference in float32, for inputs of half precision."""
    dtype = inputs[0].dtype
    single = tuple(x.to(torch.promote_types(dtype, torch.float32)) for x in inputs)
    return results(module.to(single[0].dtype), single, "dense", rounded=dtype, **call)


def check_within_budget(module: Attention, inputs: tuple[Tensor, ...], **call: Any) -> None:
    """Compare output and gradients, in the dtype of `inputs`, with the reference in float64."""
    dtype = inputs[0].dtype
    module.to(dtype)
    fast = results(module, inputs, "fast", **call)
    plain = float32_results(module, inputs, **call)
    wide = tuple(x.double() for x in inputs)
    exact = results(module.double(), wide, "dense", rounded=dtype, **call)
    for at, (ours, naive, oracle) in enumerate(zip(fast, plain, exact, strict=True)):
        assert ours.dtype == dtype
        error, budget = relative_l2(ours, oracle), error_budget(dtype, relative_l2(naive, oracle))
        assert error <= budget, (at, call.keys(), call.get("is_causal"))


def draw_rounded(n: int, dtype: torch.dtype, **shape: int) -> tuple[Tensor, ...]:
    return tuple(x.to(dtype) for x in draw(n, **shape))


def draw(n: int, batch: int = 1, heads: int = HEADS, dtype: torch.dtype = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(n)
    shape = (batch, heads, n, DIM)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3))


@pytest.mark.usefixtures("small_batches")
@covering(("name, options", CASES), ("n", [1, 7, 8, 9, 63, 64, 130]), ("heads", [1, 2]))
def test_small_batches_equal_the_reference(
    name: str, options: dict[str, Any], n: int, heads: int
) -> None:
    module = build(name, options, heads).double()
    mask = torch.ones(1, n, dtype=torch.bool)
    mask[0, n // 3 : n // 3 + 2] = n < 9
    causal = [False, True] if module.supports.causal else [False]
    calls = [{"is_causal": c, "key_padding_mask": m} for c in causal for m in (None, mask)]
    for call in calls:
        both = [results(module, draw(n, heads=heads), run, **call) for run in ("fast", "dense")]
        for fast, dense in zip(*both, strict=True):
            torch.testing.assert_close(fast, dense, rtol=1e-8, atol=1e-9)


DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.usefixtures("small_batches")
@covering(("name, options", CASES), ("n", [9, 130]), ("dtype", DTYPES))
def test_small_batches_are_as_exact_as_the_reference_in_its_dtype(
    name: str, options: dict[str, Any], n: int, dtype: torch.dtype
) -> None:
    module = build(name, options)
    mask = torch.ones(1, n, dtype=torch.bool)
    mask[0, n // 3 : n // 3 + 2] = False
    for is_causal in [False, True] if module.supports.causal else [False]:
        for padding in (None, mask, torch.zeros_like(mask)):
            call = {"is_causal": is_causal, "key_padding_mask": padding}
            check_within_budget(module, draw_rounded(n, dtype), **call)


@pytest.mark.usefixtures("small_batches")
@covering(
    ("options", [options for name, options in CASES if name == "longformer"]),
    ("n", [9, 130]),
    ("dtype", [torch.float64, *DTYPES]),
)
def test_global_tokens_are_as_exact_as_the_reference_in_its_dtype(
    options: dict[str, Any], n: int, dtype: torch.dtype
) -> None:
    module = build("longformer", options)
    chosen = torch.zeros(2, n, dtype=torch.bool)
    chosen[0, [0, n // 5, n - 1]] = True  # real tokens; and none in the other row
    mask = torch.ones(2, n, dtype=torch.bool)
    mask[:, n // 3 : n // 2 + 1] = False
    inputs = draw_rounded(n, dtype, batch=2)
    inputs += tuple(x.flip(2) for x in inputs)  # the projections of the global tokens
    for is_causal in (False, True):
        for padding in (None, mask):
            call = {"is_causal": is_causal, "key_padding_mask": padding, "global_mask": chosen}
            check_within_budget(module, inputs, **call)


def hessian_product(
    run: Any, leaves: list[Tensor], real: Tensor, **call: Any
) -> tuple[Tensor, ...]:
    """Return the Hessian of a weighted sum of the real rows, times a direction."""
    generator = torch.Generator().manual_seed(5)
    out = run(*leaves[:3], **call)
    weight = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    total = (out * weight * real).sum()  # its gradient needs no graph
    grads = torch.autograd.grad(total, leaves, create_graph=True)
    along = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in leaves]
    total = sum((grad * x).sum() for grad, x in zip(grads, along, strict=True))
    return torch.autograd.grad(total, leaves, materialize_grads=True)


CHUNKED = [(name, options | {"kernel": "chunked"}) for name, options in CASES[-2:]]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("n", [9, 70])
@pytest.mark.parametrize(("name", "options"), [*CASES, *CHUNKED], ids=str)
def test_second_derivatives_equal_the_reference(
    name: str, options: dict[str, Any], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attention.backends.bigbird.grid.SMALL_LENGTH", 20)
    module = build(name, options).double()
    mask = torch.ones(2, n, dtype=torch.bool)
    mask[0, n // 3 : n // 3 + 2], mask[1, -3:] = False, False
    chosen = torch.zeros(2, n, dtype=torch.bool)
    chosen[0, [0, n // 5]] = True
    for is_causal in [False, True] if module.supports.causal else [False]:
        for padding in (None, mask):
            call: dict[str, Any] = {"key_padding_mask": padding}
            if is_causal:
                call["is_causal"] = True
            if name == "longformer" and padding is None:
                call["global_mask"] = chosen
            leaves = [x.requires_grad_() for x in draw(n, batch=2)] + list(module.parameters())
            real = torch.ones(2, n) if padding is None else padding
            both = [
                hessian_product(run, leaves, real[:, None, :, None], **call)
                for run in (module, module.reference)
            ]
            for fast, dense in zip(*both, strict=True):
                torch.testing.assert_close(fast, dense, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES[1:]])
@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c[0] != "performer"], ids=str)
def test_a_gradient_with_a_graph_drops_the_same_weights(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    module = build(name, {**options, "dropout_p": 0.3}).to(dtype)
    leaves = [x.to(dtype).requires_grad_() for x in draw(70, batch=2)] + list(module.parameters())
    out = module(*leaves[:3])
    weight = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
    plain = torch.autograd.grad(out, leaves, weight, retain_graph=True)
    graphed = torch.autograd.grad(out, leaves, weight, create_graph=True)
    for a, b in zip(plain, graphed, strict=True):
        assert b.dtype == dtype
        assert b.grad_fn is not None
        assert relative_l2(a, b) <= (1e-9 if dtype == torch.float64 else 0.03)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c[0] != "performer"])
def test_dropout_of_half_precision_is_that_of_float32(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    """Where the tiles are the same, so are the weights that are dropped."""
    module = build(name, {**options, "dropout_p": 0.3}).to(dtype)
    inputs = draw_rounded(130, dtype)
    torch.manual_seed(1)
    half = results(module, inputs, "fast")
    wide = tuple(x.float() for x in inputs)
    torch.manual_seed(1)
    single = results(module.float(), wide, "fast", rounded=dtype)
    for a, b in zip(half, single, strict=True):
        assert relative_l2(a, b) <= error_budget(dtype, 0.0)


@covering(
    ("dtype", DTYPES),
    ("n", [576, 833]),
    (
        "name, options",
        [
            ("longformer", {"window": 64}),
            ("bigbird", {"block_size": 32}),
            ("linformer", {"seq_len": 900, "rank": 64}),
            ("performer", {"num_features": 64, "seed": 0}),
        ],
    ),
)
def test_batches_of_the_usual_size(
    name: str, options: dict[str, Any], n: int, dtype: torch.dtype
) -> None:
    module = build(name, options).to(dtype)
    inputs = draw(n, batch=2, dtype=torch.float32)
    inputs = tuple(x.to(dtype) for x in inputs)
    wide = build(name, options).double()
    wide.load_state_dict(module.state_dict())
    exact = wide.reference(*(x.double() for x in inputs))
    naive = relative_l2(wide.float().reference(*(x.float() for x in inputs)), exact)
    assert relative_l2(module(*inputs), exact) <= error_budget(dtype, naive)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_runs_repeat_bit_by_bit_and_threads_change_no_more_than_rounding(
    name: str, options: dict[str, Any]
) -> None:
    module = build(name, options).float()
    threads = torch.get_num_threads()
    inputs = draw(130, dtype=torch.float32)
    try:
        torch.set_num_threads(1)
        first, again = (results(module, inputs, "fast") for _ in range(2))
        torch.set_num_threads(max(2, threads))
        threaded = results(module, inputs, "fast")
    finally:
        torch.set_num_threads(threads)
    for a, b, c in zip(first, again, threaded, strict=True):
        assert torch.equal(a, b)
        assert relative_l2(c, a) <= error_budget(torch.float32, 0.0)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c[0] != "performer"])
def test_scores_in_the_thousands_neither_overflow_nor_vanish(
    name: str, options: dict[str, Any]
) -> None:
    module = build(name, options).double()
    q, k, v = draw(90)
    mask = torch.ones(1, 90, dtype=torch.bool)
    mask[0, 20:60] = False
    for call in ({}, {"key_padding_mask": mask}):
        inputs = (q * 60, k * 60, v)
        exact = results(module, inputs, "dense", **call)
        for fast, dense in zip(results(module, inputs, "fast", **call), exact, strict=True):
            torch.testing.assert_close(fast, dense, rtol=1e-8, atol=1e-8)
        single = results(module.float(), tuple(x.float() for x in inputs), "fast", **call)
        module.double()
        assert all(x.isfinite().all() for x in single)
        # A score of thousands is rounded to about 1e-3, and the weights with it.
        assert relative_l2(single[0].double(), exact[0]) < 2e-3


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_nan_in_the_input_stays_visible(name: str, options: dict[str, Any]) -> None:
    module = build(name, options).double()
    q, k, v = draw(64)
    v[0, :, 40] = float("nan")
    assert module(q, k, v).isnan().any()
    for which in (0, 1):  # of a query: its own row; of a key: the rows that see it
        inputs = draw(64)
        inputs[which][0, :, 0] = float("nan")
        seen = module.reference(*inputs).isnan()
        assert seen[0, :, 0].all()
        assert module(*inputs)[seen].isnan().all()


@covering(
    ("n", [1, 31, 64, 200]),
    ("window", [0, 3, 8, 30]),
    ("groups", [1, 3, 16]),
    ("disjoint", [False, True]),
)
def test_every_query_once_and_windows_end_to_end(
    n: int, window: int, groups: int, disjoint: bool
) -> None:
    plan = longformer.BandPlan(
        groups=groups, seq_len=n, window=window, is_causal=False, rows=4,
        device=torch.device("cpu"),
    )  # fmt: skip
    met = torch.zeros(groups * n, dtype=torch.int64)
    at = torch.arange(groups * n).view(groups, n)
    for tiles in plan.batches(1500, disjoint=disjoint):
        met[tiles.cut(at, tiles.start, tiles.rows).flatten()] += 1
        keys = tiles.window(at).flatten()
        if disjoint:
            assert keys.unique().numel() == keys.numel()
    assert (met == 1).all()


@pytest.mark.parametrize("total", [0, 1, 2, 7, 8, 19])
@pytest.mark.parametrize("most", [2, 4, 10])
def test_chunks_cover_their_range_in_even_sizes(total: int, most: int) -> None:
    cut = list(chunks(total, most))
    assert [i for first, count in cut for i in range(first, first + count)] == list(range(total))
    assert all(count <= most for _, count in cut)
    assert all(count % 2 == 0 for _, count in cut[:-1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own, while it traces
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("longformer", {"window": 8}),
        ("bigbird", {"block_size": 4, "num_random_blocks": 1, "num_global_tokens": 3}),
        ("linformer", {"seq_len": 1024, "rank": 12}),
        ("performer", {"num_features": 24, "seed": 1}),
        ("sdpa", {}),
    ],
)
def test_a_compiled_graph_does_not_grow_with_the_length(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the compiler has scratch memory of its own
    import torch._dynamo as dynamo

    sizes = []
    for n in (512, 1024) if name != "bigbird" else (256, 512, 1024):
        dynamo.reset()
        module = build(name, options)
        inputs = draw(n, dtype=torch.float32)
        nodes: list[int] = []

        def count(graph: Any, _: Any, nodes: list[int] = nodes) -> Any:
            nodes.append(len(graph.graph.nodes))
            return graph.forward

        compiled = torch.compile(module, backend=count)
        torch.testing.assert_close(compiled(*inputs), module(*inputs), rtol=1e-4, atol=1e-5)
        sizes.append(sum(nodes))
    assert sizes[-1] == sizes[-2]
    # BigBird's small blocks go another way up to 256 tokens; its first graph makes their mask.
    assert sizes[0] == sizes[-1] or (name == "bigbird" and sizes[0] < 2**8)

"""What single backends promise beyond the contract."""

from __future__ import annotations

import itertools
import subprocess
import sys
import types
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import attention
from attention.backends.bigbird.grid import BlockGrid, random_blocks
from attention.backends.longformer.band import band_pairs
from attention.backends.performer.random_features import orthogonal_features
from attention.backends.sdpa import SDPAAttention
from attention.backends.xformers import packed_bias
from attention.base import UnsupportedError
from attention.functional import exact_attention_rows, relative_l2
from attention.problem import Problem
from attention.testing import Bench, assert_matches, counted_ops


def qkv(
    n: int, m: int | None = None, *, heads: int = 4, dim: int = 16, scale: float = 1.0,
    dtype: torch.dtype = torch.float64, batch: int = 2,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    shapes = [(batch, heads, length, dim) for length in (n, m or n, m or n)]
    q, k, v = (scale * torch.randn(shape, dtype=dtype) for shape in shapes)
    return q, k, v


# -- the package --------------------------------------------------------------------------------


def test_the_seven_backends_are_named_and_importable() -> None:
    wanted = {"full", "sdpa", "xformers", "longformer", "bigbird", "linformer", "performer"}
    assert wanted <= set(attention.names())
    for name in wanted:
        cls = attention.get(name)
        assert getattr(attention, cls.__name__) is cls
        assert attention.describe(name)["paper"]


@pytest.mark.slow
def test_import_costs_little_beyond_torch() -> None:
    """Counted in modules, not in seconds: nothing heavy comes along."""
    code = (
        "import torch, sys; before = set(sys.modules); import attention;"
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"xformers", "triton", "pandas", "asv", "matplotlib", "transformers"} & set(out)


@pytest.mark.slow
def test_importing_the_package_loads_no_compiler() -> None:
    """Choosing and asking must not, either: FlexAttention's compiler comes with the first call."""
    code = (
        "import torch, sys; before = set(sys.modules); import attention;"
        "m = attention.build('longformer', num_heads=2, head_dim=16, kernel='flex');"
        "attention.describe('longformer'); attention.get('bigbird').unavailable_reasons('cuda');"
        "print(*set(sys.modules) - before)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not [m for m in out if m.startswith(("torch._dynamo", "torch._inductor", "sympy"))]


def test_unknown_option_names_the_near_one() -> None:
    with pytest.raises(TypeError, match=r"windw: longformer has no such option.*'window'"):
        attention.build("longformer", num_heads=4, head_dim=16, windw=3)
    with pytest.raises(TypeError, match="seq_len: linformer needs seq_len"):
        attention.build("linformer", num_heads=4, head_dim=16)


BAD_OPTIONS = [
    ("full", {"num_heads": 0}, ValueError, "num_heads: expected at least 1, got 0"),
    ("full", {"num_heads": 2.0}, TypeError, "num_heads: expected a whole number, got 2.0"),
    ("full", {"dropout_p": 1.0}, ValueError, "dropout_p: expected a number .*below 1, got 1.0"),
    ("full", {"scale": float("nan")}, ValueError, "scale: expected a number finite"),
    ("sdpa", {"kernel": "fast"}, ValueError, "kernel: .*auto, compiled, flash, .*got 'fast'"),
    ("sdpa", {"kernel": None}, ValueError, "kernel: .*auto, compiled, flash, .*got None"),
    ("longformer", {"kernel": "cuda"}, ValueError, "kernel: .*auto, tiled, compiled, flex"),
    ("bigbird", {"kernel": "chunked"}, ValueError, "kernel: .*auto, tiled, compiled, flex"),
    ("performer", {"kernel": "flex"}, ValueError, "kernel: .*auto, tiled, compiled, chunked"),
    ("longformer", {"window": -1}, ValueError, "window: expected at least 0"),
    ("longformer", {"dilation": [1, 2]}, ValueError, "dilation: expected one number or 4"),
    ("longformer", {"dilation": 0}, ValueError, "dilation: expected at least 1"),
    ("longformer", {"dilation": "2"}, TypeError, "dilation: expected a whole number, got '2'"),
    ("bigbird", {"block_size": 0}, ValueError, "block_size: expected at least 1"),
    ("bigbird", {"num_random_blocks": -1}, ValueError, "num_random_blocks: expected at least 0"),
    ("linformer", {"seq_len": 8, "sharing": "all"}, ValueError, "sharing: expected one of none"),
    ("linformer", {"seq_len": 8, "rank": 0}, ValueError, "rank: expected at least 1"),
    ("performer", {"num_features": 0}, ValueError, "num_features: expected at least 1"),
    ("performer", {"features": "elu"}, ValueError, "features: expected one of softmax, relu"),
    ("performer", {"epsilon": 0.1}, ValueError, "epsilon: only ReLU features take one"),
    ("performer", {"orthogonal": 1}, TypeError, "orthogonal: expected true or false, got 1"),
    ("performer", {"seed": -1}, ValueError, "seed: expected at least 0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "error", "message"), BAD_OPTIONS)
def test_bad_options_are_refused(
    name: str, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        attention.build(name, **{"num_heads": 4, "head_dim": 16, **options})


def test_a_second_backend_of_one_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'full' is already registered"):
        attention.register("full")(type("Other", (attention.SDPAAttention,), {}))
    assert attention.get("full") is attention.FullAttention


@pytest.mark.parametrize("name", [n for n in attention.names() if n != "xformers"])
def test_autocast_runs_in_the_autocast_dtype(name: str) -> None:
    options = {"seq_len": 40} if name == "linformer" else {}
    module = attention.build(name, num_heads=4, head_dim=16, **options).eval()
    q, k, v = qkv(40, dtype=torch.float32)
    asked = {"is_causal": not module.supports.bidirectional}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(q, k, v, **asked)
        kept = module.double()(q.double(), k.double(), v.double(), **asked)
    assert out.dtype == torch.bfloat16
    assert kept.dtype == torch.float64
    module.float()
    cast = module(*(x.bfloat16() for x in (q, k, v)), **asked)
    assert_matches("same as casting by hand", out, cast, 0.0)


@pytest.mark.parametrize("name", ["bigbird", "performer"])
def test_seeds_are_bounded_by_name(name: str) -> None:
    for seed in (-1, 2**63, 10**20):
        with pytest.raises(ValueError, match="seed: expected at"):
            attention.build(name, num_heads=4, head_dim=16, seed=seed)
    attention.build(name, num_heads=4, head_dim=16, seed=2**62)(*qkv(40))


def test_autocast_refuses_mixed_inputs_by_name() -> None:
    q, k, v = qkv(10)
    module = attention.build("full", num_heads=4, head_dim=16)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(ValueError, match=r"k: expected dtype torch\.float64 as q after"),
    ):
        module(q, k.float(), v)


KERNELS: list[tuple[str, dict[str, Any]]] = [
    ("longformer", {"window": 4}),
    ("bigbird", {"block_size": 4}),
    ("linformer", {"seq_len": 30, "rank": 8}),
    ("linformer", {"seq_len": 30, "rank": 8, "method": "mean_pool"}),
    ("performer", {"seed": 0, "num_features": 24}),
    ("performer", {"seed": 0, "num_features": 24, "kernel": "chunked"}),
]


def test_a_performer_made_in_inference_mode_trains() -> None:
    with torch.inference_mode():
        module = attention.build("performer", num_heads=4, head_dim=16)
    q, k, v = (x.requires_grad_() for x in qkv(9))
    module(q, k, v).sum().backward()
    assert q.grad is not None


@pytest.mark.parametrize(("name", "options"), [("full", {}), ("sdpa", {}), *KERNELS], ids=str)
def test_a_gradient_is_that_of_what_was_computed(name: str, options: dict[str, Any]) -> None:
    """Or torch's error: never one of what a tensor became between the passes."""
    module = attention.build(name, num_heads=4, head_dim=16, **options).double()
    for causal in [False, True] if module.supports.causal else [False]:
        changeable = ["q", "k", "v", "mask", *dict(module.named_parameters())]
        changeable += ["buffers"] * bool(dict(module.named_buffers()))
        for changed in changeable:
            q, k, v = (x.requires_grad_() for x in qkv(30))
            mask = torch.ones(q.shape[0], 30, dtype=torch.bool)
            mask[0, 20:] = False
            leaves = [q, k, v, *module.parameters()]
            out = module(q, k, v, is_causal=causal, key_padding_mask=mask)
            weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
            right = torch.autograd.grad(out, leaves, weight, retain_graph=True)
            with torch.no_grad():
                if changed == "mask":
                    mask.logical_not_()
                elif changed == "buffers":
                    module.redraw() if causal else module.load_state_dict(
                        {n: x + 1 if x.is_floating_point() else x
                         for n, x in module.state_dict().items() if isinstance(x, torch.Tensor)},
                    )  # fmt: skip
                else:
                    {"q": q, "k": k, "v": v, **dict(module.named_parameters())}[changed].mul_(2)
            error = ""
            try:
                ours = torch.autograd.grad(out, leaves, weight)
            except RuntimeError as raised:
                error = str(raised)
            if error:
                assert any(f"modified {how}" in error for how in ("by an inplace", "inplace"))
            else:
                assert all(torch.equal(a, b) for a, b in zip(ours, right, strict=True)), changed


@pytest.mark.parametrize("name", ["full", "sdpa", "longformer", "bigbird", "linformer"])
def test_dropout_acts_in_training_only_is_seeded_and_unbiased(name: str) -> None:
    options = {"seq_len": 64} if name == "linformer" else {}
    torch.manual_seed(3)
    module = attention.build(name, num_heads=4, head_dim=16, dropout_p=0.25, **options).double()
    q, k, v = qkv(64)
    plain = module.eval()(q, k, v)
    assert_matches("off in eval mode", module(q, k, v), plain, 0.0)
    module.train()
    torch.manual_seed(1)
    first = module(q, k, v)
    torch.manual_seed(1)
    assert_matches("one seed, one output", module(q, k, v), first, 0.0)
    assert relative_l2(first, plain) > 0.05
    mean = torch.stack([module(q, k, v) for _ in range(400)]).mean(dim=0)
    assert_matches("unbiased", mean, plain, 0.1)


@pytest.mark.parametrize("name", ["longformer", "bigbird"])
def test_dropout_drops_the_same_weights_in_the_backward_pass(name: str) -> None:
    options = {"window": 3} if name == "longformer" else {"block_size": 4}
    module = attention.build(name, num_heads=2, head_dim=3, dropout_p=0.4, **options)
    inputs = [x.requires_grad_() for x in qkv(21, heads=2, dim=3, batch=1)]

    def call(*args: Tensor) -> Tensor:
        torch.manual_seed(5)
        return module(*args)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(call, inputs)


# -- sdpa ---------------------------------------------------------------------------------------


def test_sdpa_records_the_kernel_and_pins_it() -> None:
    q, k, v = qkv(40)
    free = attention.SDPAAttention(num_heads=4, head_dim=16)
    free(q, k, v)
    assert free.kernel == "flash"
    math = attention.SDPAAttention(num_heads=4, head_dim=16, kernel="math")
    math(q, k, v, is_causal=True)
    assert math.kernel == "math"
    for kernel in ("efficient", "cudnn"):
        pinned = attention.build("sdpa", num_heads=4, head_dim=16, kernel=kernel)
        with pytest.raises(attention.UnsupportedError, match=f"kernel: {kernel} does not exist"):
            pinned(q, k, v)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own, while it traces
@pytest.mark.parametrize(
    ("case", "is_causal"),
    [*itertools.product(("square", "masked", "grouped", "cross"), (False, True))],
)
def test_sdpa_compiles_into_one_graph_which_does_not_say_the_kernel(
    case: str, is_causal: bool
) -> None:
    torch.compiler.reset()
    q, k, v = qkv(24, 40 if case == "cross" else 24)
    if case == "grouped":
        k, v = k[:, :2], v[:, :2]
    mask = torch.arange(24) < torch.tensor([[24], [7]]) if case == "masked" else None
    module = attention.build("sdpa", num_heads=4, head_dim=16)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    out = compiled(q, k, v, is_causal=is_causal, key_padding_mask=mask)
    assert module.kernel == "auto"
    expected = module(q, k, v, is_causal=is_causal, key_padding_mask=mask)
    assert module.kernel in ("flash", "math")
    real = torch.ones(24, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(*(x.where(real[..., None, :, None], 0) for x in (out, expected)))


@pytest.mark.filterwarnings("ignore")  # torch says why, once a process
def test_sdpa_pinned_flash_raises_where_torch_would_fall_back() -> None:
    pinned = attention.SDPAAttention(num_heads=4, head_dim=16, kernel="flash", dropout_p=0.5)
    q, k, v = (x.requires_grad_() for x in qkv(40))
    with pytest.raises(
        attention.UnsupportedError,
        match=r"kernel: flash cannot serve this call .*torch: .*dropout",
    ):
        pinned.train()(q, k, v)


@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize(("n", "m"), [(33, 33), (33, 50), (50, 33)])
def test_sdpa_by_torchs_plain_kernel_declares_the_hidden_pairs_too(
    n: int, m: int, mode: Literal["forward", "training"]
) -> None:
    bench = Bench(SDPAAttention, {"kernel": "math"}, "cpu")
    call = bench.inputs(n, m, is_causal=True, dtype=torch.float32)
    module = bench.build(m)
    cost = module.cost(Problem.of(call.q, call.k, is_causal=True), mode)
    assert cost.executed_ops == counted_ops(module, call, mode)
    assert cost.executed_ops > cost.pattern_ops


# -- longformer ---------------------------------------------------------------------------------


def test_longformer_with_a_full_window_is_exact() -> None:
    q, k, v = qkv(50)
    for causal in (False, True):
        module = attention.LongformerAttention(num_heads=4, head_dim=16, window=49)
        expected = exact_attention_rows(q, k, v, is_causal=causal)
        assert_matches("output", module(q, k, v, is_causal=causal), expected, 1e-12)


def test_longformer_dilation_reaches_multiples_only() -> None:
    n, window, gap, at = 60, 2, 7, 30
    module = attention.LongformerAttention(num_heads=1, head_dim=4, window=window, dilation=gap)
    q, k, v = (x.requires_grad_() for x in qkv(n, heads=1, dim=4, batch=1))
    (grad,) = torch.autograd.grad(module(q, k, v)[0, 0, at].sum(), v)
    seen = grad[0, 0].abs().sum(dim=1).nonzero().flatten().tolist()
    assert seen == [at - 2 * gap, at - gap, at, at + gap, at + 2 * gap]


@pytest.mark.parametrize(("n", "window"), [(1, 0), (1, 5), (7, 3), (50, 8), (8, 50)])
@pytest.mark.parametrize("causal", [False, True])
def test_band_pairs_counts_the_band(n: int, window: int, causal: bool) -> None:
    i = torch.arange(n)
    distance = i - i[:, None]
    band = (distance >= -window) & (distance <= (0 if causal else window))
    assert band_pairs(n, window, causal) == int(band.sum())


def test_longformer_global_inputs_are_checked() -> None:
    module = attention.LongformerAttention(num_heads=4, head_dim=16)
    q, k, v = qkv(20)
    mask = torch.zeros(2, 20, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"global_mask: expected shape \(2, 20\)"):
        module(q, k, v, global_mask=mask[:, :5])
    with pytest.raises(TypeError, match="global_mask: expected dtype bool"):
        module(q, k, v, global_mask=mask.int())
    with pytest.raises(TypeError, match="global_qkv: expected a triple"):
        module(q, k, v, global_mask=mask, global_qkv=q)
    with pytest.raises(ValueError, match="global_qkv: its k must be"):
        module(q, k, v, global_mask=mask, global_qkv=(q, k[:1], v))


# -- bigbird ------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [8, 24, 33, 100, 1000])
def test_random_blocks_are_legal_and_distinct(length: int, causal: bool) -> None:
    grid = BlockGrid(length, 8, 0, causal)
    chosen = random_blocks(grid, 3, 3, seed=7)
    for head, row in itertools.product(range(3), grid.sparse_rows()):
        blocks = [b for b in chosen[head, row].tolist() if b >= 0]
        lo, hi = grid.window(row)
        last = row if causal else grid.blocks - 1
        candidates = {b for b in range(1, last) if not lo <= b < hi}
        assert len(set(blocks)) == len(blocks) == min(3, len(candidates))
        assert set(blocks) <= candidates


def test_random_blocks_are_uniform() -> None:
    grid = BlockGrid(8 * 40, 8, 0, False)
    counts = torch.bincount(random_blocks(grid, 4000, 3, seed=1)[:, 20].flatten())
    counts = counts[counts > 0].double()
    assert len(counts) == 35  # 40, less first and last, less a window of three
    expected = 4000 * 3 / 35
    assert float(((counts - expected) ** 2 / expected).sum()) < 65.2  # χ² of 34, p = 0.001


def test_causal_random_blocks_do_not_depend_on_the_length() -> None:
    short, long = (random_blocks(BlockGrid(n, 8, 0, True), 3, 3, seed=7) for n in (1000, 2000))
    assert torch.equal(short, long[:, : short.shape[1]])
    assert not torch.equal(short, random_blocks(BlockGrid(1000, 8, 0, True), 3, 3, seed=8))


def test_a_longer_causal_input_never_changes_the_past() -> None:
    module = attention.BigBirdAttention(num_heads=4, head_dim=16, block_size=8)
    q, k, v = qkv(300)
    long = module(q, k, v, is_causal=True)
    short = module(q[:, :, :131], k[:, :, :131], v[:, :, :131], is_causal=True)
    assert_matches("the past", long[:, :, :131], short, 1e-12)


def test_leading_padding_does_not_move_the_pattern() -> None:
    module = attention.BigBirdAttention(num_heads=4, head_dim=16, block_size=8)
    q, k, v = qkv(120)
    alone = module(q[:, :, 20:], k[:, :, 20:], v[:, :, 20:])
    mask = torch.ones(2, 120, dtype=torch.bool)
    mask[:, :20] = False
    padded = module(q, k, v, key_padding_mask=mask)
    assert_matches("real tokens", padded[:, :, 20:], alone, 1e-12)


def test_bigbird_of_few_blocks_is_exact() -> None:
    q, k, v = qkv(40)
    module = attention.BigBirdAttention(num_heads=4, head_dim=16, block_size=8)
    assert_matches("output", module(q, k, v), exact_attention_rows(q, k, v), 1e-12)


# -- linformer ----------------------------------------------------------------------------------


def test_mean_pool_of_full_rank_is_exact() -> None:
    q, k, v = qkv(50)
    module = attention.LinformerAttention(
        num_heads=4, head_dim=16, seq_len=50, rank=50, method="mean_pool"
    )
    assert_matches("output", module(q, k, v), exact_attention_rows(q, k, v), 1e-12)


def test_linformer_refuses_more_keys_than_built_for() -> None:
    module = attention.LinformerAttention(num_heads=4, head_dim=16, seq_len=50)
    with pytest.raises(attention.UnsupportedError, match="built for seq_len 50, got M=51"):
        module(*qkv(51, dtype=torch.float32))


def test_linformer_sharing_decides_the_parameters() -> None:
    def weights(**options: object) -> list[tuple[int, ...]]:
        module = attention.build(
            "linformer", num_heads=4, head_dim=16, seq_len=20, rank=5, **options
        )
        return [tuple(p.shape) for p in module.parameters()]

    assert weights(sharing="none") == [(4, 5, 20), (4, 5, 20)]
    assert weights(sharing="headwise") == [(1, 5, 20), (1, 5, 20)]
    assert weights(sharing="key_value") == [(1, 5, 20)]
    assert weights(method="mean_pool") == []
    shared = attention.LinformerAttention.shared_options(seq_len=20, rank=5, sharing="layer")
    layers = [
        attention.build(
            "linformer", num_heads=4, head_dim=16, seq_len=20, rank=5, sharing="layer", **shared
        )
        for _ in range(2)
    ]
    assert next(layers[0].parameters()) is next(layers[1].parameters())
    with pytest.raises(ValueError, match=r"projection: expected a weight \(1, 6, 20\)"):
        attention.build(
            "linformer", num_heads=4, head_dim=16, seq_len=20, rank=6, sharing="layer", **shared
        )


# -- performer ----------------------------------------------------------------------------------


def test_features_are_orthogonal_in_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    omega = orthogonal_features(40, 16, generator).double()
    for start in (0, 16):
        gram = omega[start : start + 16] @ omega[start : start + 16].T
        off = gram - torch.diag(gram.diagonal())
        assert float(off.abs().max()) < 1e-5 * float(gram.diagonal().max())
    lengths = orthogonal_features(4000, 16, generator).norm(dim=1)
    assert abs(float((lengths**2).mean()) - 16) < 0.5  # as Gaussian vectors


def test_error_falls_with_the_root_of_the_features() -> None:
    q, k, v = qkv(200, heads=8, scale=0.3)
    exact = exact_attention_rows(q, k, v)
    mean = {}
    for count in (64, 1024):
        errors = [
            relative_l2(
                attention.PerformerAttention(
                    num_heads=8, head_dim=16, num_features=count, seed=seed
                )(q, k, v),
                exact,
            )
            for seed in range(20)
        ]
        mean[count] = sum(errors) / len(errors)
    assert mean[1024] < 0.1
    assert 2.5 < mean[64] / mean[1024] < 6.5, mean  # 16 times the features: a quarter the error


@pytest.mark.parametrize("causal", [False, True])
def test_features_survive_inputs_that_overflow_naive_exponentials(causal: bool) -> None:
    module = attention.PerformerAttention(num_heads=4, head_dim=16, seed=0)
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (x.requires_grad_() for x in qkv(150, scale=30.0, dtype=dtype))
        out = module(q, k, v, is_causal=causal)
        out.sum().backward()
        for x in (out, q.grad, k.grad, v.grad):
            assert x is not None
            assert bool(x.isfinite().all())
        assert bool(out.abs().max() <= 1.01 * v.abs().max())  # a weighted mean
        if causal:  # the first query sees one key, whatever comes later
            assert_matches("first row", out[:, :, 0], v[:, :, 0], 1e-2)
            short = module(q[:, :, :70], k[:, :, :70], v[:, :, :70], is_causal=True)
            assert_matches("the past", out[:, :, :70], short, 1e-2)


def test_redraw_walks_a_seeded_stream() -> None:
    first, second = (
        attention.PerformerAttention(num_heads=4, head_dim=16, seed=4) for _ in range(2)
    )
    start = first.projection.clone()
    first.redraw()
    assert not torch.equal(first.projection, start)
    second.redraw()
    assert torch.equal(first.projection, second.projection)
    third = attention.PerformerAttention(num_heads=4, head_dim=16, seed=9)
    third.load_state_dict(first.state_dict())
    first.redraw()
    third.redraw()
    assert torch.equal(first.projection, third.projection)


# -- xformers: what can be checked without a GPU ------------------------------------------------


def test_xformers_says_why_it_cannot_run_here() -> None:
    module = attention.XFormersAttention(num_heads=4, head_dim=16)
    with pytest.raises(attention.UnsupportedError, match="no CPU kernel"):
        module(*qkv(20, dtype=torch.float32))


def test_xformers_refuses_a_second_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backward pass is one that torch takes for a constant."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Tensor) -> Tensor:
            ctx.save_for_backward(q)
            return q**3

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return 3 * ctx.saved_tensors[0] ** 2 * grad

    library = types.SimpleNamespace(memory_efficient_attention=lambda q, *_, **__: Once.apply(q))
    monkeypatch.setattr("attention.backends.xformers.operators", lambda: library)
    module = attention.XFormersAttention(num_heads=4, head_dim=16)
    q, k, v = (x.requires_grad_() for x in qkv(5))
    out = module.attend(q, k, v, is_causal=False, key_padding_mask=None).sum()
    (grad,) = torch.autograd.grad(out, q, retain_graph=True)
    torch.testing.assert_close(grad, 3 * q**2)
    with pytest.raises(UnsupportedError, match="create_graph: xformers has first derivatives"):
        torch.autograd.grad(out, q, create_graph=True)


@pytest.fixture
def fmha() -> types.ModuleType:
    """The library's operators, its attention written out with its own dense biases."""
    real = pytest.importorskip("xformers.ops.fmha")

    def dense(
        q: Tensor, k: Tensor, v: Tensor, attn_bias: object, p: float, scale: float
    ) -> Tensor:
        assert p == 0.0
        scores = torch.einsum("bnhd,bmhd->bhnm", q, k) * scale
        if attn_bias is not None:
            mask = attn_bias.materialize(scores.shape, dtype=scores.dtype, device="cpu")  # type: ignore[attr-defined]
            scores = scores + mask
        return torch.einsum("bhnm,bmhd->bnhd", scores.softmax(dim=-1), v)

    stand_in = types.ModuleType("fmha")
    stand_in.memory_efficient_attention = dense  # type: ignore[attr-defined]
    stand_in.attn_bias = real.attn_bias  # type: ignore[attr-defined]
    return stand_in


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("m", [30, 20, 41])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padding", [False, True])
def test_xformers_biases_mean_what_we_mean(
    fmha: types.ModuleType, monkeypatch: pytest.MonkeyPatch, m: int, causal: bool, padding: bool
) -> None:
    monkeypatch.setattr("attention.backends.xformers.operators", lambda: fmha)
    n = 30
    if causal and padding and n != m:
        pytest.skip("declared unsupported")
    module = attention.XFormersAttention(num_heads=4, head_dim=16)
    q, k, v = qkv(n, m, batch=3)
    mask = None
    if padding:
        mask = torch.arange(m) < torch.tensor([m, 11, 0])[:, None]
    out = module.attend(q, k, v, is_causal=causal, key_padding_mask=mask)
    expected = exact_attention_rows(q, k, v, is_causal=causal, key_padding_mask=mask)
    real = torch.ones(3, 1, n, 1)
    if mask is not None and n == m:
        real = mask[:, None, :, None].double()
        assert bool((out[2] == 0).all())
    assert_matches("output", out * real, expected * real, 1e-12)


@pytest.mark.filterwarnings("ignore")
def test_packed_bias_keeps_a_key_where_there_is_none(fmha: types.ModuleType) -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    keep, bias = packed_bias(fmha, mask, seq_len=2)
    assert keep.tolist() == [[True, False, True], [True, False, False]]
    dense = bias.materialize((4, 3), device="cpu")
    assert (dense == 0).tolist() == [[True, True, False]] * 2 + [[False, False, True]] * 2


def test_dropout_is_asked_about_again_after_a_call_without() -> None:
    class Choosy(SDPAAttention):
        def unsupported_reasons(self, problem: Problem) -> list[str]:
            return ["dropout_p: not here"] if self.active_dropout_p else []

    module = Choosy(num_heads=2, head_dim=8, dropout_p=0.5).eval()
    q, k, v = (torch.randn(1, 2, 4, 8) for _ in range(3))
    module(q, k, v)
    module(q, k, v)
    with pytest.raises(UnsupportedError, match="dropout_p: not here"):
        module.train()(q, k, v)

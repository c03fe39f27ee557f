"""The kernels made for a GPU, forward and backward, against their references in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attention
from attention.backends.sdpa import KERNELS
from attention.functional import error_budget, relative_l2
from attention.testing import assert_matches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
    # The compiler's own warnings; what it gets wrong shows in the numbers.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
VARIANTS: list[tuple[str, dict[str, Any], str]] = [
    ("longformer", {"window": 64}, "flex_band"),
    ("longformer", {"window": 300, "dilation": [1, 1, 2, 3]}, "flex_band"),
    ("bigbird", {"block_size": 64}, "flex_blocks"),
    ("bigbird", {"block_size": 128, "num_random_blocks": 1}, "flex_blocks"),
    ("bigbird", {"block_size": 32, "num_global_tokens": 5}, "flex_blocks"),
    ("performer", {"num_features": 64, "seed": 0}, "chunked_sums"),
    ("performer", {"num_features": 64, "seed": 0, "features": "relu"}, "chunked_sums"),
    ("linformer", {"rank": 64, "seq_len": 1000}, "learned_projection+sdpa"),
    (
        "linformer", {"rank": 64, "seq_len": 1000, "method": "mean_pool"},
        "mean_pool_projection+sdpa",
    ),
]  # fmt: skip
N, HEADS, DIM = 1000, 4, 64


def draw(dtype: torch.dtype, kv_heads: int = HEADS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, N, DIM) for heads in (HEADS, kv_heads, kv_heads)]
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    return [x.to("cuda", dtype).requires_grad_() for x in drawn]


def hold_against_reference(
    module: Any, inputs: list[Tensor], asks: dict[str, Any], keep: Tensor
) -> None:
    """Compare output and gradients; the budget comes from the reference in this dtype."""
    dtype = inputs[0].dtype
    wide = [x.detach().double().requires_grad_() for x in inputs]
    plain = [x.detach().float().requires_grad_() for x in inputs]
    weight = torch.randn(inputs[0].shape, device="cuda") * keep
    found = []
    for call, leaves in (
        (module, inputs), (module.reference, wide), (module.reference, plain)
    ):  # fmt: skip
        out = call(*leaves, **asks)
        grads = torch.autograd.grad(out, leaves, weight.to(out.dtype))
        found.append([out * keep, *grads])
    for name, actual, oracle, same in zip(("output", "q", "k", "v"), *found, strict=True):
        budget = error_budget(dtype, relative_l2(same, oracle))
        assert bool(actual.isfinite().all()), name
        # A gradient is a longer chain of roundings than an output.
        assert_matches(name, actual, oracle, budget * (1 if name == "output" else 4))


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "options", "kernel"), VARIANTS, ids=str)
def test_kernel_equals_reference(
    name: str,
    options: dict[str, Any],
    kernel: str,
    dtype: torch.dtype,
    causal: bool,
    padding: bool,
) -> None:
    module = attention.build(name, num_heads=HEADS, head_dim=DIM, **options).to("cuda")
    if causal and not module.supports.causal:
        pytest.skip(f"{name} is bidirectional only")
    real = torch.ones(2, N, dtype=torch.bool, device="cuda")
    if padding:
        real[1, :37] = False
        real[1, 800:] = False
        real[0, 500:510] = False
    asks = {"is_causal": causal, "key_padding_mask": real if padding else None}
    hold_against_reference(module, draw(dtype, kv_heads=2), asks, real[:, None, :, None])
    wanted = "chunked_prefix_sums" if kernel == "chunked_sums" and causal else kernel
    assert module.kernel == wanted


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_global_tokens_equal_reference(dtype: torch.dtype, causal: bool) -> None:
    module = attention.LongformerAttention(num_heads=HEADS, head_dim=DIM, window=50).to("cuda")
    asks = {"is_causal": causal, "global_mask": torch.arange(N, device="cuda").expand(2, -1) < 9}
    keep = torch.ones(1, 1, 1, 1, device="cuda")
    hold_against_reference(module, draw(dtype), asks, keep)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kernel", list(KERNELS))
def test_exact_kernel_equals_reference_or_says_why_not(kernel: str, dtype: torch.dtype) -> None:
    module = attention.build("sdpa", num_heads=HEADS, head_dim=DIM, kernel=kernel)
    keep = torch.ones(1, 1, 1, 1, device="cuda")
    try:
        hold_against_reference(module, draw(dtype), {"is_causal": True}, keep)
    except attention.UnsupportedError as reason:
        pytest.skip(str(reason))
    assert module.kernel == kernel


@pytest.mark.parametrize("name", ["longformer", "bigbird"])
def test_lists_of_long_sequences_run(name: str) -> None:
    """What a GPU must show: rows of a list that overlap in memory, forward and backward."""
    n = 2**17
    module = attention.build(name, num_heads=1, head_dim=DIM).to("cuda")
    q, k, v = (
        torch.randn(1, 1, n, DIM, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )
    out = module(q, k, v)
    out.sum().backward()
    rows = torch.tensor([0, 5000, n // 2, n - 1], device="cuda")
    oracle = module.reference(q.double(), k.double(), v.double(), rows=rows)
    plain = module.reference(q.float(), k.float(), v.float(), rows=rows)
    budget = error_budget(torch.bfloat16, relative_l2(plain, oracle))
    assert_matches("rows", out[:, :, rows], oracle, budget)
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in (q, k, v))


LINEAR: dict[str, dict[str, Any]] = {
    "longformer": {}, "bigbird": {}, "linformer": {"seq_len": 16384}, "performer": {"seed": 0},
}  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", list(LINEAR))
def test_nothing_of_n_by_n_is_allocated(name: str, training: bool) -> None:
    """Of four heads it would be 1 GiB for each element's byte; a few outputs are 8 MiB each."""
    n = 16384
    module = attention.build(name, num_heads=HEADS, head_dim=DIM, **LINEAR[name])
    module = module.to("cuda", torch.bfloat16)
    q, k, v = (
        torch.randn(1, HEADS, n, DIM, device="cuda", dtype=torch.bfloat16, requires_grad=training)
        for _ in range(3)
    )

    def call() -> None:
        out = module(q, k, v)
        if training:
            out.sum().backward()

    call()  # compiles, and keeps its masks
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < HEADS * n * n // 4


@pytest.mark.parametrize("name", list(LINEAR))
def test_two_calls_are_alike_to_the_bit(name: str) -> None:
    module = attention.build(name, num_heads=HEADS, head_dim=DIM, **LINEAR[name])
    module = module.to("cuda", torch.bfloat16)
    n = 16384 if name == "linformer" else N
    q, k, v = (
        torch.randn(2, HEADS, n, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(3)
    )
    assert torch.equal(module(q, k, v), module(q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["full", "sdpa", "longformer", "performer"])
def test_decoding_equals_prefill(name: str, dtype: torch.dtype) -> None:
    """A prompt, then token for token, beside the causal call on all of them."""
    module = attention.build(name, num_heads=HEADS, head_dim=DIM, **LINEAR.get(name, {}))
    module = module.to("cuda", dtype).eval()
    q, k, v = (x.detach() for x in draw(dtype))
    whole = module(q, k, v, is_causal=True)
    state = module.init_state(batch_size=2, max_len=N, dtype=dtype, device="cuda")
    outs = [module.prefill(*(x[:, :, : N - 8] for x in (q, k, v)), state)]
    for at in range(N - 8, N):
        outs.append(module.step(*(x[:, :, at : at + 1] for x in (q, k, v)), state))
    oracle = module.reference(q.double(), k.double(), v.double(), is_causal=True)
    plain = module.reference(q.float(), k.float(), v.float(), is_causal=True)
    budget = error_budget(dtype, relative_l2(plain, oracle))
    assert_matches("decoded", torch.cat(outs, dim=2), oracle, budget)
    assert_matches("prefilled", whole, oracle, budget)


def test_auto_refuses_on_cuda_what_flex_cannot_serve() -> None:
    q, k, v = (torch.randn(1, 2, 300, 16, device="cuda", dtype=torch.float64) for _ in range(3))
    module = attention.LongformerAttention(num_heads=2, head_dim=16)
    with pytest.raises(attention.UnsupportedError, match=r"dtype: .*kernel='tiled' serves it"):
        module(q, k, v)
    tiled = attention.LongformerAttention(num_heads=2, head_dim=16, kernel="tiled")
    assert_matches("output", tiled(q, k, v), module.reference(q, k, v), 1e-9)

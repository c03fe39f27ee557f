"""Padding leaves no trace, whatever stands there: NaN and infinity, forward and backward.

Decoding: `test_decode`. Over ranks: `test_context_parallel`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from helpers_flex import without_kernel
from torch import Tensor, nn

import attention
from attention.base import Attention
from models.layers.block import TransformerBlock
from models.layers.multihead import MultiheadAttention
from models.layers.positional import RotaryPositions
from models.layers.recurrent import LSTMLayer

HEADS, DIM, BATCH, N, CROSS = 2, 8, 4, 12, 9
VALUES = torch.tensor([math.nan, math.inf, -math.inf, math.nan], dtype=torch.float64)
"""What stands at the padding of each batch row."""
CASES: list[tuple[str, dict[str, Any]]] = [
    ("full", {}),
    ("sdpa", {}),
    ("sdpa", {"kernel": "math"}),
    ("longformer", {"window": 3, "kernel": "tiled"}),
    ("longformer", {"window": 2, "dilation": 2, "kernel": "tiled"}),
    ("longformer", {"window": 3, "kernel": "flex"}),
    ("bigbird", {"block_size": 2, "num_random_blocks": 1, "kernel": "tiled"}),
    ("bigbird", {"block_size": 32, "num_random_blocks": 1, "kernel": "flex"}),
    ("linformer", {"seq_len": N, "rank": 4}),
    ("linformer", {"seq_len": N, "rank": 4, "sharing": "none"}),
    ("linformer", {"seq_len": N, "rank": 4, "method": "mean_pool"}),
    ("performer", {"num_features": 16, "seed": 0, "kernel": "tiled"}),
    ("performer", {"num_features": 16, "seed": 0, "kernel": "chunked"}),
    ("performer", {"num_features": 16, "seed": 0, "features": "relu"}),
]
IDS = [f"{name}-{'-'.join(str(v) for v in options.values())}" for name, options in CASES]


def mask_of(length: int) -> Tensor:
    """Return padding at the end, at the beginning and between, and a row of nothing else."""
    mask = torch.ones(BATCH, length, dtype=torch.bool)
    mask[0, length - 3 :] = mask[1, :4] = mask[2, 2:7:2] = mask[3] = False
    return mask


def check_no_trace(
    module: nn.Module,
    run: Callable[..., Tensor],
    inputs: list[Tensor],
    padded: list[Tensor | None],
    real: Tensor | None,
) -> None:
    """Compare a call with one that has `VALUES` at padding: output, all gradients.

    Args:
        module: whose parameters' gradients count too.
        run: the call, of the inputs.
        inputs: with numbers at padding.
        padded: where values go, broadcastable to each input; ``None`` = nowhere.
        real: which outputs count; ``None`` = all.
    """
    found = []
    for is_clean in (True, False):
        leaves = [x.clone() for x in inputs]
        for x, at in zip(leaves, padded, strict=True):
            if at is not None and not is_clean:
                x.copy_(torch.where(at, VALUES.view(-1, *[1] * (x.dim() - 1)), x))
            x.requires_grad_()
        out = run(*leaves)
        assert out.isfinite().all()
        out = out if real is None else out * real
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).sin().view_as(out)
        wanted = [*leaves, *module.parameters()]
        grads = torch.autograd.grad((out * weight).sum(), wanted, allow_unused=True)
        found.append([out, *grads])
    for clean, dirty in zip(*found, strict=True):
        torch.testing.assert_close(dirty, clean, rtol=1e-12, atol=1e-12)


def draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def build(name: str, options: dict[str, Any], patch: pytest.MonkeyPatch) -> Attention:
    if options.get("kernel") == "flex":
        without_kernel(patch)
    torch.manual_seed(0)
    return attention.build(name, num_heads=HEADS, head_dim=DIM, **options).double()


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_in_one_sequence(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = build(name, options, monkeypatch)
    mask = mask_of(N)
    at = ~mask[:, None, :, None]
    inputs = draw(*[(BATCH, HEADS, N, DIM)] * 3)
    # Where N and M may differ, every query is a real one.
    own = None if module.supports.cross else at
    for is_causal in [False, True] if module.supports.causal else [False]:
        run = partial(module, is_causal=is_causal, key_padding_mask=mask)
        check_no_trace(module, run, inputs, [own, at, at], ~at)


@pytest.mark.parametrize(
    ("name", "options"), [c for c in CASES if attention.get(c[0]).supports.cross]
)
def test_across_two_sequences(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = build(name, options, monkeypatch)
    mask = mask_of(CROSS)
    at = ~mask[:, None, :, None]
    inputs = draw((BATCH, HEADS, N, DIM), *[(BATCH, HEADS // 2, CROSS, DIM)] * 2)
    for is_causal in [False, True] if module.supports.causal else [False]:
        run = partial(module, is_causal=is_causal, key_padding_mask=mask)
        check_no_trace(module, run, inputs, [None, at, at], None)


def test_a_query_beside_a_padded_key_of_another_sequence_is_a_real_one() -> None:
    module = attention.build("sdpa", num_heads=HEADS, head_dim=DIM)
    q, k, v = draw(*[(BATCH, HEADS, N, DIM)] * 3)
    mask = mask_of(N)
    out = module(q, k, v, key_padding_mask=mask)
    torch.testing.assert_close(out, module.reference(q, k, v, key_padding_mask=mask))


@pytest.mark.parametrize("kernel", ["tiled", "flex"])
@pytest.mark.parametrize("projected", [False, True])
def test_beside_global_tokens(
    projected: bool, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = build("longformer", {"window": 2, "kernel": kernel}, monkeypatch)
    mask = mask_of(N)
    at = ~mask[:, None, :, None]
    chosen = torch.zeros(BATCH, N, dtype=torch.bool)
    chosen[0, [0, 11]] = chosen[1, [1, 5, 7]] = True  # some of them padding
    inputs = draw(*[(BATCH, HEADS, N, DIM)] * (6 if projected else 3))

    def run(*tensors: Tensor) -> Tensor:
        own = {"global_qkv": tensors[3:]} if projected else {}
        out: Tensor = module(*tensors[:3], key_padding_mask=mask, global_mask=chosen, **own)
        return out

    check_no_trace(module, run, inputs, [at] * len(inputs), ~at)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "multihead-sdpa": lambda: MultiheadAttention(d_model=16, num_heads=2, attention="sdpa"),
    "multihead-rotary": lambda: MultiheadAttention(
        d_model=16, num_heads=2, attention="full",
        rotary=RotaryPositions(head_dim=8),
    ),
    "multihead-performer": lambda: MultiheadAttention(
        d_model=16, num_heads=2, attention="performer", attention_options={"seed": 0}
    ),
    "multihead-longformer": lambda: MultiheadAttention(
        d_model=16, num_heads=2, attention="longformer", attention_options={"window": 2}
    ),
    **{
        f"multihead-linformer-{order}": lambda order=order: MultiheadAttention(  # type: ignore[misc]
            d_model=16, num_heads=2, attention="linformer", projection_order=order,
            attention_options={"seq_len": N, "rank": 3},
        )
        for order in ("features_first", "sequence_first")
    },
    "block-pre": lambda: TransformerBlock(d_model=16, num_heads=2),
    "block-post": lambda: TransformerBlock(d_model=16, num_heads=2, norm="post"),
    "lstm": lambda: LSTMLayer(d_model=16, is_causal=False),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_in_a_layer(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    mask = mask_of(N)
    more: dict[str, Any] = {}
    if "longformer" in name:
        more["global_mask"] = torch.zeros(BATCH, N, dtype=torch.bool)
        more["global_mask"][:, [0, 5, 11]] = True
    run = partial(layer, key_padding_mask=mask, **more)
    at = ~mask[:, :, None]
    check_no_trace(layer, run, draw((BATCH, N, 16)), [at], ~at)


def test_in_a_layer_between_two_sequences() -> None:
    torch.manual_seed(0)
    layer = MultiheadAttention(d_model=16, num_heads=2, attention="sdpa").double()
    mask = mask_of(CROSS)
    run = partial(layer, key_padding_mask=mask)
    inputs = draw((BATCH, N, 16), (BATCH, CROSS, 16))
    check_no_trace(layer, run, inputs, [None, ~mask[:, :, None]], None)

"""Our backends against other people's implementations, with copied weights."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attention
from attention.backends.bigbird.grid import BlockGrid
from attention.testing import assert_matches
from models import MultiheadAttention

HEADS, DIM, BATCH = 4, 16, 2
WIDTH = HEADS * DIM


@pytest.fixture(scope="module", autouse=True)
def _peers() -> None:
    """Import them, which takes seconds; their deprecations are theirs."""
    global LinformerSelfAttention, FastAttention, causal_linear_attention_noncuda
    global generalized_kernel, linear_attention, softmax_kernel, BigBirdConfig, LongformerConfig
    global BigBirdBlockSparseAttention, BigBirdModel, LongformerSelfAttention
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from linformer.linformer import LinformerSelfAttention
        from performer_pytorch.performer_pytorch import (
            FastAttention,
            causal_linear_attention_noncuda,
            generalized_kernel,
            linear_attention,
            softmax_kernel,
        )
        from transformers import BigBirdConfig, LongformerConfig
        from transformers.models.big_bird.modeling_big_bird import (
            BigBirdBlockSparseAttention,
            BigBirdModel,
        )
        from transformers.models.longformer.modeling_longformer import LongformerSelfAttention


def heads(x: Tensor) -> Tensor:
    """Split [B, N, H·D] into [B, H, N, D]."""
    return x.unflatten(2, (HEADS, -1)).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def copy_linear(target: nn.Linear, source: nn.Linear) -> None:
    with torch.no_grad():
        target.weight.copy_(source.weight)
        if source.bias is not None:
            assert target.bias is not None
            target.bias.copy_(source.bias)


@pytest.mark.parametrize("with_global", [False, True])
@pytest.mark.parametrize("with_padding", [False, True])
def test_longformer_is_hugging_faces(with_global: bool, with_padding: bool) -> None:
    length, window = 96, 8
    config = LongformerConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_hidden_layers=1,
        attention_window=[2 * window],
        attention_probs_dropout_prob=0.0,
    )
    theirs = LongformerSelfAttention(config, layer_id=0).eval()
    x = torch.randn(BATCH, length, WIDTH, requires_grad=True)
    real = torch.ones(BATCH, length, dtype=torch.bool)
    if with_padding:
        real[1, 70:] = False
    is_global = torch.zeros(BATCH, length, dtype=torch.bool)
    if with_global:  # a different number a row
        is_global[0, [0, 33, 95]] = True
        is_global[1, 5] = True
    mask = torch.where(is_global, 10000.0, 0.0).masked_fill(~real, -10000.0)
    expected = theirs(
        x,
        attention_mask=mask,
        is_index_masked=mask < 0,
        is_index_global_attn=mask > 0,
        is_global_attn=with_global,
    )[0]
    ours = attention.build("longformer", num_heads=HEADS, head_dim=DIM, window=window)
    q, k, v = (heads(layer(x)) for layer in (theirs.query, theirs.key, theirs.value))
    extra: dict[str, Any] = {}
    if with_global:
        projections = (theirs.query_global, theirs.key_global, theirs.value_global)
        extra = {
            "global_mask": is_global,
            "global_qkv": tuple(heads(layer(x)) for layer in projections),
        }
    actual = merge(ours(q, k, v, key_padding_mask=real, **extra))
    keep = real[:, :, None]
    assert_matches("output", actual * keep, expected * keep, 1e-5)
    weight = torch.randn_like(actual) * keep
    (got,) = torch.autograd.grad(actual, x, weight, retain_graph=True)
    (want,) = torch.autograd.grad(expected, x, weight)
    assert_matches("gradient", got, want, 1e-5)


def test_longformer_layer_is_hugging_faces() -> None:
    """The multi-head layer builds q_g, k_g, v_g from the declaration alone."""
    length, window = 64, 8
    config = LongformerConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_hidden_layers=1,
        attention_window=[2 * window],
        attention_probs_dropout_prob=0.0,
    )
    theirs = LongformerSelfAttention(config, layer_id=0).eval()
    ours = MultiheadAttention(
        d_model=WIDTH,
        num_heads=HEADS,
        attention="longformer",
        attention_options={"window": window},
    ).eval()
    globals_ = ours.call_projections["global_qkv"]
    for mine, others in (
        (ours.qkv, (theirs.query, theirs.key, theirs.value)),
        (globals_, (theirs.query_global, theirs.key_global, theirs.value_global)),
    ):
        for target, source in zip((mine.q_proj, mine.k_proj, mine.v_proj), others, strict=True):
            copy_linear(target, source)
    is_global = torch.zeros(BATCH, length, dtype=torch.bool)
    is_global[:, 0] = True
    x = torch.randn(BATCH, length, WIDTH)
    mask = torch.where(is_global, 10000.0, 0.0)
    expected = theirs(
        x,
        attention_mask=mask,
        is_index_masked=mask < 0,
        is_index_global_attn=mask > 0,
        is_global_attn=True,
    )[0]
    actual = ours(x, global_mask=is_global)
    assert_matches("output", actual, ours.out_proj(expected), 1e-5)


def test_bigbird_is_hugging_faces() -> None:
    block, length, random = 16, 256, 2
    config = BigBirdConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        block_size=block,
        num_random_blocks=random,
        max_position_embeddings=length,
        use_bias=True,
    )
    theirs = BigBirdBlockSparseAttention(config, seed=0)
    theirs.train()  # in eval mode all of its random blocks are block 0
    ours = attention.BigBirdAttention(
        num_heads=HEADS, head_dim=DIM, block_size=block, num_random_blocks=random, seed=3
    )
    grid = BlockGrid(length, block, 0, False)
    pattern = ours.pattern.random_blocks(grid, torch.device("cpu"))
    pattern = pattern[:, 1:-1].numpy()  # [H, blocks-2, r]
    assert (pattern >= 1).all()
    assert len({tuple(rows.flatten()) for rows in pattern}) == HEADS, "heads differ"
    theirs._bigbird_block_rand_mask_with_head = lambda **_: [  # type: ignore[method-assign]
        np.asarray(rows) for rows in pattern
    ]
    real = torch.ones(BATCH, length)
    masks = BigBirdModel.create_masks_for_block_sparse_attn(real, block)
    x = torch.randn(BATCH, length, WIDTH, requires_grad=True)
    blocked, band, from_mask, to_mask = masks
    expected = theirs(x, band, from_mask, to_mask, blocked, blocked)[0]
    q, k, v = (heads(layer(x)) for layer in (theirs.query, theirs.key, theirs.value))
    actual = merge(ours(q, k, v))
    assert_matches("output", actual, expected, 1e-5)
    weight = torch.randn_like(actual)
    (got,) = torch.autograd.grad(actual, x, weight, retain_graph=True)
    (want,) = torch.autograd.grad(expected, x, weight)
    assert_matches("gradient", got, want, 1e-5)


@pytest.mark.parametrize("share_kv", [False, True])
@pytest.mark.parametrize("length", [48, 64])
def test_linformer_is_the_packages(share_kv: bool, length: int) -> None:
    longest, rank = 64, 16
    theirs = LinformerSelfAttention(
        WIDTH, longest, k=rank, heads=HEADS, share_kv=share_kv, dropout=0.0
    )
    ours = attention.LinformerAttention(
        num_heads=HEADS,
        head_dim=DIM,
        seq_len=longest,
        rank=rank,
        sharing="key_value" if share_kv else "headwise",
    )
    with torch.no_grad():
        assert ours.key_projection is not None
        ours.key_projection.weight.copy_(theirs.proj_k.T)
        if not share_kv:
            assert ours.value_projection is not None
            ours.value_projection.weight.copy_(theirs.proj_v.T)
    x = torch.randn(BATCH, length, WIDTH, requires_grad=True)
    expected = theirs(x)
    keys = theirs.to_k(x)
    values = keys if share_kv else theirs.to_v(x)
    actual = theirs.to_out(merge(ours(heads(theirs.to_q(x)), heads(keys), heads(values))))
    assert_matches("output", actual, expected, 1e-5)
    weight = torch.randn_like(actual)
    (got,) = torch.autograd.grad(actual, x, weight, retain_graph=True)
    (want,) = torch.autograd.grad(expected, x, weight)
    assert_matches("gradient", got, want, 1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("features", ["softmax", "relu"])
def test_performer_is_performer_pytorchs(features: str, is_causal: bool) -> None:
    length, count = 100, 32
    theirs = FastAttention(
        DIM, nb_features=count, generalized_attention=features == "relu", causal=False
    )
    ours = attention.PerformerAttention(
        num_heads=HEADS, head_dim=DIM, num_features=count, features=features
    )
    ours.projection.copy_(theirs.projection_matrix)
    q, k, v = (torch.randn(BATCH, HEADS, length, DIM, requires_grad=True) for _ in range(3))
    kernel: Any = partial(generalized_kernel, projection_matrix=theirs.projection_matrix)
    phi_q, phi_k = kernel(q), kernel(k)
    if features == "softmax":
        # Their ε of 1e-4 on every feature is a bias that the paper's formula does not have.
        kernel = partial(softmax_kernel, projection_matrix=theirs.projection_matrix, eps=0.0)
        phi_q, phi_k = kernel(q, is_query=True), kernel(k, is_query=False)
    if is_causal:
        expected = causal_linear_attention_noncuda(phi_q, phi_k, v, eps=0.0)
    else:
        expected = linear_attention(phi_q, phi_k, v)
    actual = ours(q, k, v, is_causal=is_causal)
    assert_matches("output", actual, expected, 1e-5)
    weight = torch.randn_like(actual)
    got = torch.autograd.grad(actual, (q, k, v), weight, retain_graph=True)
    want = torch.autograd.grad(expected, (q, k, v), weight)
    for name, a, b in zip("qkv", got, want, strict=True):
        assert_matches(f"gradient of {name}", a, b, 1e-4)


def test_performer_layer_of_performer_pytorch_within_its_epsilon() -> None:
    """Their whole module, ε included: as close as that ε allows."""
    theirs = FastAttention(DIM, nb_features=64, causal=False)
    ours = attention.PerformerAttention(num_heads=HEADS, head_dim=DIM, num_features=64)
    ours.projection.copy_(theirs.projection_matrix)
    q, k, v = (0.5 * torch.randn(BATCH, HEADS, 200, DIM) for _ in range(3))
    assert_matches("output", ours(q, k, v), theirs(q, k, v), 2e-2)

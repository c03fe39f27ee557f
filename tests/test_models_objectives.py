"""Objectives: what is predicted, and that a tiny model learns each with every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import attention
from models import (
    ModelConfig,
    TransformerModel,
    mask_tokens,
    masked_lm_loss,
    next_token_loss,
    sequence_to_sequence_loss,
)
from models.objectives import IGNORED

OPTIONS: dict[str, dict[str, Any]] = {
    "longformer": {"window": 4},
    "bigbird": {"block_size": 4, "num_random_blocks": 1},
    "linformer": {"rank": 8},
    "performer": {"num_features": 32, "seed": 0},
}
MASK, START = 1, 2


def available() -> list[str]:
    return [
        name for name in attention.names()
        if not attention.get(name).unavailable_reasons("cpu")
    ]  # fmt: skip


def model(architecture: Any, name: str, **more: Any) -> TransformerModel:
    torch.manual_seed(0)
    config = ModelConfig(
        architecture, vocab_size=20, d_model=32, num_layers=2, num_heads=4, d_ff=48, max_len=24
    )
    return TransformerModel(
        config, attention=name, attention_options=OPTIONS.get(name, {}), **more
    )


def sequences() -> Tensor:
    """Tokens that count up from a random start: what follows can be learned."""
    start = torch.randint(0, 8, (16, 1), generator=torch.Generator().manual_seed(0))
    return 4 + (start + torch.arange(16)) % 16


def train(
    loss: Callable[[], Tensor], module: TransformerModel, steps: int = 40
) -> tuple[float, float]:
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    first = last = 0.0
    for step in range(steps):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
        last = value.item()
        first = last if step == 0 else first
    return first, last


@pytest.mark.parametrize("name", [*available(), "lstm"])
def test_masked_tokens_are_learned(name: str) -> None:
    made, generator = model("encoder", name), torch.Generator().manual_seed(0)
    first, last = train(
        lambda: masked_lm_loss(
            made, sequences(), vocab_size=20, mask_id=MASK, generator=generator
        ),
        made,
        steps=100,  # few tokens are predicted at a time
    )
    assert last < 0.85 * first


@pytest.mark.parametrize(
    "name", ["lstm", *(n for n in available() if attention.get(n).supports.causal)]
)
def test_next_tokens_are_learned(name: str) -> None:
    made = model("decoder", name)
    first, last = train(lambda: next_token_loss(made, sequences()), made)
    assert last < 0.5 * first


@pytest.mark.parametrize("name", [*available(), "lstm"])
def test_targets_are_learned(name: str) -> None:
    decoder = "lstm" if name == "lstm" else "sdpa"
    made = model("encoder_decoder", name, decoder_attention=decoder)
    source = sequences()
    first, last = train(
        lambda: sequence_to_sequence_loss(made, source, source[:, :6], start_id=START), made
    )
    assert last < 0.5 * first


def test_fifteen_percent_are_chosen_and_eighty_ten_ten_hidden() -> None:
    ids = torch.full((400, 100), 7)
    ids[:, 0] = 3
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, 90:] = False
    inputs, labels = mask_tokens(
        ids, vocab_size=1000, mask_id=MASK, key_padding_mask=mask, special_ids=[3],
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    chosen = labels != IGNORED
    assert not chosen[:, 0].any()
    assert not chosen[:, 90:].any()
    assert torch.equal(inputs[~chosen], ids[~chosen])
    assert (labels[chosen] == 7).all()
    assert abs(float(chosen[:, 1:90].double().mean()) - 0.15) < 0.01
    shown = inputs[chosen]
    shares = [(shown == MASK), (shown != MASK) & (shown != 7), shown == 7]
    for share, expected in zip(shares, (0.8, 0.1, 0.1), strict=True):
        assert abs(float(share.double().mean()) - expected) < 0.02


def test_padding_counts_nowhere() -> None:
    made = model("decoder", "sdpa").double().eval()
    ids = sequences()[:2]
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 9:] = False
    together = next_token_loss(made, ids, key_padding_mask=mask)
    whole, short = next_token_loss(made, ids[:1]), next_token_loss(made, ids[1:, :9])
    torch.testing.assert_close(together, (15 * whole + 8 * short) / 23)
    both = model("encoder_decoder", "sdpa").double().eval()
    together = sequence_to_sequence_loss(
        both, ids, ids, start_id=START, key_padding_mask=mask, target_padding_mask=mask
    )
    whole = sequence_to_sequence_loss(both, ids[:1], ids[:1], start_id=START)
    short = sequence_to_sequence_loss(both, ids[1:, :9], ids[1:, :9], start_id=START)
    torch.testing.assert_close(together, (16 * whole + 9 * short) / 25)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="input_ids: expected at least 2 tokens, got 1"):
        next_token_loss(model("decoder", "sdpa"), sequences()[:, :1])
    with pytest.raises(ValueError, match=r"probability: expected at most 1, got 1.5"):
        mask_tokens(sequences(), vocab_size=20, mask_id=MASK, probability=1.5)
    with pytest.raises(ValueError, match="input_ids: of 16 tokens none was chosen"):
        masked_lm_loss(
            model("encoder", "sdpa"), sequences()[:1], vocab_size=20, mask_id=MASK,
            special_ids=range(20),
        )  # fmt: skip

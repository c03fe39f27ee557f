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


def available(*, causal: bool = True) -> list[str]:
    """Return what runs here; those that are causal only where causal calls are made."""
    return [
        name for name in attention.names()
        if not attention.get(name).unavailable_reasons("cpu")
        and (causal or attention.get(name).supports.bidirectional)
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


@pytest.mark.parametrize("name", [*available(causal=False), "lstm"])
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


@pytest.mark.parametrize("name", [*available(causal=False), "lstm"])
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


def test_bad_ids_are_named_before_anything_is_learned_from_them() -> None:
    decoder, both = model("decoder", "sdpa"), model("encoder_decoder", "sdpa")
    encoder, ids = model("encoder", "sdpa"), sequences()
    for wrong, said in ((20, "got 20"), (IGNORED, "got -100")):
        last = ids.clone()
        last[0, -1] = wrong  # never read by the decoder
        with pytest.raises(ValueError, match=rf"^input_ids: expected ids from 0 to 19 .*{said}"):
            next_token_loss(decoder, last)
        with pytest.raises(ValueError, match=rf"^target_ids: expected ids from 0 to 19 .*{said}"):
            sequence_to_sequence_loss(both, ids, last, start_id=START)
        with pytest.raises(ValueError, match=rf"^input_ids: expected ids from 0 to 19 .*{said}"):
            sequence_to_sequence_loss(both, last, ids, start_id=START)
        with pytest.raises(ValueError, match=rf"^input_ids: expected ids from 0 to 19 .*{said}"):
            masked_lm_loss(encoder, last, vocab_size=20, mask_id=MASK, probability=1.0)
    with pytest.raises(ValueError, match=r"^start_id: expected below vocab_size=20, got 20"):
        sequence_to_sequence_loss(both, ids, ids, start_id=20)
    with pytest.raises(ValueError, match=r"^target_padding_mask: expected shape"):
        sequence_to_sequence_loss(
            both, ids, ids, start_id=START, target_padding_mask=ids[:, 1:] > 0
        )
    with pytest.raises(TypeError, match=r"^input_ids: expected whole numbers"):
        next_token_loss(decoder, ids.float())
    call: dict[str, Any] = {"input_ids": ids, "vocab_size": 20, "mask_id": MASK}
    for given, error, said in (
        ({"mask_id": 20}, ValueError, "mask_id: expected below vocab_size=20, got 20"),
        ({"vocab_size": 0}, ValueError, "vocab_size: expected at least 1"),
        ({"input_ids": ids - 100}, ValueError, "input_ids: expected ids from 0 on, got -"),
        ({"key_padding_mask": ids}, TypeError, "key_padding_mask: expected dtype bool"),
    ):
        with pytest.raises(error, match=said):
            mask_tokens(**{**call, **given})


def test_the_last_token_needs_no_position() -> None:
    """It is predicted, not read: a sequence may be one longer than the model."""
    ids = torch.randint(3, 20, (2, 26), generator=torch.Generator().manual_seed(0))
    assert next_token_loss(model("decoder", "sdpa"), ids[:, :25]).isfinite()
    with pytest.raises(ValueError, match="input_ids: 26 tokens are more than the model's max_len"):
        next_token_loss(model("decoder", "sdpa"), ids)


def test_a_target_is_padded_behind_its_tokens() -> None:
    both, ids = model("encoder_decoder", "sdpa"), sequences()[:2]
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, :3] = False
    with pytest.raises(ValueError, match="target_padding_mask: expected padding behind"):
        sequence_to_sequence_loss(both, ids, ids, start_id=START, target_padding_mask=mask)
    # Of what is read the padding may stand anywhere.
    loss = sequence_to_sequence_loss(both, ids, ids, start_id=START, key_padding_mask=mask)
    assert loss.isfinite()


def test_segments_are_checked() -> None:
    config = ModelConfig(
        "encoder", vocab_size=20, d_model=32, num_layers=1, num_heads=4, d_ff=48, max_len=24,
        num_token_types=2,
    )  # fmt: skip
    made, ids = TransformerModel(config), sequences()
    made(ids, token_type_ids=(ids > 9).int())
    for types, error, said in (
        (ids * 0 + 2, ValueError, r"token_type_ids: expected ids from 0 to 1 .*=2\), got 2"),
        (ids * 0 - 1, ValueError, "token_type_ids: expected ids from 0 to 1 .*got -1"),
        (ids > 9, TypeError, "token_type_ids: expected whole numbers .* got torch.bool"),
        ([[0]], TypeError, "token_type_ids: expected a tensor, got list"),
    ):
        with pytest.raises(error, match=said):
            made(ids, token_type_ids=types)

"""Packed documents in layers and models: as if each were called alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attention import Packed, UnsupportedError
from models import (
    ModelConfig,
    MultiheadAttention,
    TransformerEncoder,
    TransformerModel,
    masked_lm_loss,
    next_token_loss,
)

PACKED = Packed([7, 1, 0, 12, 7])
OPTIONS: dict[str, dict[str, Any]] = {
    "longformer": {"window": 3},
    "bigbird": {"block_size": 2, "num_random_blocks": 1},
    "linformer": {"rank": 4},
    "performer": {"num_features": 16, "seed": 0},
}
MAX_LEN = 12
"""Of the models: of a document, not of the row."""


def model(architecture: Any, name: str, positions: Any = "learned") -> TransformerModel:
    torch.manual_seed(0)
    config = ModelConfig(
        architecture, vocab_size=20, d_model=16, num_layers=2, num_heads=2, d_ff=24,
        max_len=MAX_LEN, positions=positions, dropout_p=0.0, attention_dropout_p=0.0,
    )  # fmt: skip
    options = OPTIONS.get(name, {})
    return TransformerModel(config, attention=name, attention_options=options).double()


def ids() -> Tensor:
    return torch.randint(3, 20, (1, PACKED.total), generator=torch.Generator().manual_seed(1))


def gradients(module: torch.nn.Module, out: Tensor) -> list[Tensor]:
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).double()
    return list(
        torch.autograd.grad((out * weight).sum(), list(module.parameters()), allow_unused=True,
                            materialize_grads=True)
    )  # fmt: skip


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("name", ["sdpa", "longformer", "performer", "bigbird"])
def test_a_decoder_reads_each_document_alone(name: str, positions: str) -> None:
    module, row = model("decoder", name, positions), ids()
    out = module(row, packed=PACKED)
    alone = torch.cat([module(part) for part in PACKED.split(row) if part.shape[1]], dim=1)
    torch.testing.assert_close(out, alone)
    torch.testing.assert_close(gradients(module, out), gradients(module, alone))


@pytest.mark.parametrize("name", ["sdpa", "linformer", "lstm"])
def test_an_encoder_reads_each_document_alone(name: str) -> None:
    module, row = model("encoder", name), ids()
    out = module(row, packed=PACKED)
    alone = torch.cat([module(part) for part in PACKED.split(row) if part.shape[1]], dim=1)
    torch.testing.assert_close(out, alone)


def test_a_stack_over_embeddings_starts_each_document_at_position_0() -> None:
    torch.manual_seed(0)
    stack = TransformerEncoder(num_layers=1, d_model=16, num_heads=2, max_len=MAX_LEN).double()
    x = torch.randn(1, PACKED.total, 16, dtype=torch.float64)
    alone = [stack(part) for part in PACKED.split(x) if part.shape[1]]
    torch.testing.assert_close(stack(x, packed=PACKED), torch.cat(alone, dim=1))


def test_the_next_token_loss_masks_the_seams() -> None:
    module, row = model("decoder", "sdpa"), ids()
    loss = next_token_loss(module, row, packed=PACKED)
    parts = [part for part in PACKED.split(row) if part.shape[1] > 1]
    each = torch.stack([next_token_loss(module, part) * (part.shape[1] - 1) for part in parts])
    torch.testing.assert_close(loss, each.sum() / sum(part.shape[1] - 1 for part in parts))
    with pytest.raises(ValueError, match="packed: expected a document of at least 2 tokens"):
        next_token_loss(module, row[:, :3], packed=Packed([1, 1, 1]))


def test_the_masked_loss_sees_one_document() -> None:
    module, row = model("encoder", "sdpa"), ids()

    def loss(tokens: Tensor, **packed: Packed) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return masked_lm_loss(
            module, tokens, vocab_size=20, mask_id=1, probability=0.5, generator=generator,
            special_ids=range(20, 40), **packed,
        )  # fmt: skip

    with pytest.raises(ValueError, match="max_len"):
        loss(row)
    assert loss(row, packed=PACKED) > 0


def test_what_does_not_go_with_documents_is_refused() -> None:
    decoder, row = model("decoder", "sdpa"), ids()
    with pytest.raises(ValueError, match=r"packed: a document of 14 tokens .* max_len=12"):
        decoder(row, packed=Packed([14, 13]))
    with pytest.raises(ValueError, match=r"packed: its 1 lengths add up to 5, .* 27 tokens"):
        decoder(row, packed=Packed([5]))
    with pytest.raises(TypeError, match=r"packed: expected attention.Packed"):
        decoder(row, packed=[27])
    with pytest.raises(UnsupportedError, match="packed: goes with no state"):
        decoder(row, packed=PACKED, state=decoder.init_state(batch_size=1))
    both = model("encoder_decoder", "sdpa")
    with pytest.raises(UnsupportedError, match="packed: a decoder would read all documents"):
        both(row, row, packed=PACKED)
    lstm = model("decoder", "lstm")
    mask = torch.ones(1, PACKED.total, dtype=torch.bool)
    with pytest.raises(ValueError, match="key_padding_mask: packed"):
        lstm(row, packed=PACKED, key_padding_mask=mask)


def test_a_layer_refuses_keys_and_another_order() -> None:
    x = torch.randn(1, PACKED.total, 16)
    layer = MultiheadAttention(d_model=16, num_heads=2)
    with pytest.raises(UnsupportedError, match="key: packed documents attend to themselves"):
        layer(x, x.clone(), packed=PACKED)
    layer = MultiheadAttention(
        d_model=16, num_heads=2, attention="linformer", projection_order="sequence_first",
        attention_options={"seq_len": 12, "rank": 4, "sharing": "layer"},
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="projection_order: packed documents"):
        layer(x, packed=PACKED)

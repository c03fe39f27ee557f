"""Activation checkpointing: the same numbers, fewer kept tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models import ModelConfig, TransformerEncoder, TransformerModel

OPTIONS: dict[str, dict[str, Any]] = {
    "longformer": {"window": 4},
    "bigbird": {"block_size": 4, "num_random_blocks": 1},
    "linformer": {"rank": 8},
    "performer": {"num_features": 32, "seed": 0},
}
NAMES = ["full", "sdpa", *OPTIONS, "lstm"]


def model(architecture: Any, name: str = "sdpa", **changes: Any) -> TransformerModel:
    torch.manual_seed(0)
    config = ModelConfig(
        architecture, vocab_size=20, d_model=32, num_layers=3, num_heads=4, d_ff=48, max_len=24,
        **changes,
    )  # fmt: skip
    options = {"attention": name, "attention_options": OPTIONS.get(name)}
    if architecture == "encoder_decoder" and name == "linformer":
        options["decoder_attention"] = "sdpa"
    return TransformerModel(config, **options).double()


def step(made: TransformerModel, **inputs: Tensor) -> tuple[Tensor, list[Tensor], int]:
    """Return the loss, the gradients, and the bytes that the forward pass kept."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    made.zero_grad()
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 20, (3, 17), generator=generator)
    mask = torch.arange(17) < torch.tensor([[17], [9], [1]])
    second = (ids[:, :7],) if made.config.architecture == "encoder_decoder" else ()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = made(ids, *second, key_padding_mask=mask, **inputs).square().mean()
    held = sum(kept.values())
    loss.backward()
    gradients = [p.grad for p in made.parameters() if p.grad is not None]
    return loss.detach(), gradients, held


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("architecture", ["encoder", "decoder", "encoder_decoder"])
def test_loss_and_gradients_are_the_same_and_less_is_kept(architecture: Any, name: str) -> None:
    if architecture == "decoder" and name == "linformer":
        pytest.skip("linformer cannot be causal")
    made = model(
        architecture, name, dropout_p=0.3, attention_dropout_p=0.3, activation_dropout_p=0.3
    )
    loss, gradients, kept = step(made)
    made.checkpointing = True
    again, others, less = step(made)
    assert torch.equal(loss, again)
    assert len(gradients) == len(others)
    for mine, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)
    assert less < 0.7 * kept


def test_inputs_of_the_call_and_rotary_positions_come_through() -> None:
    made = model("encoder", "longformer", positions="rotary", dropout_p=0.3)
    is_global = torch.zeros(3, 17, dtype=torch.bool)
    is_global[:, 0] = True
    loss, gradients, _ = step(made, global_mask=is_global)
    made.checkpointing = True
    again, others, _ = step(made, global_mask=is_global)
    assert torch.equal(loss, again)
    torch.testing.assert_close(others, gradients)


def test_it_acts_in_training_alone() -> None:
    made = model("decoder", dropout_p=0.3)
    made.checkpointing = True
    ran: list[int] = []
    made.decoder.blocks[0].register_forward_pre_hook(lambda *_: ran.append(1))  # type: ignore[union-attr]
    ids = torch.zeros(1, 5, dtype=torch.int64)
    made(ids).sum().backward()
    assert len(ran) == 2
    made.eval()
    made(ids).sum().backward()
    assert len(ran) == 3
    with torch.no_grad():
        made.train()(ids)
        assert len(ran) == 4
        made.eval()(ids, state=made.init_state(batch_size=1))
    assert len(ran) == 5


def test_it_is_an_argument_and_kept_by_a_swap() -> None:
    config = model("encoder_decoder").config
    made = TransformerModel(config, checkpointing=True)
    assert made.checkpointing
    assert made.encoder is not None
    assert made.encoder.checkpointing
    swapped = made.with_attention("longformer", window=4)
    assert swapped.checkpointing
    made.checkpointing = False
    assert not made.with_attention("full").checkpointing
    assert TransformerEncoder(
        num_layers=1, d_model=16, num_heads=2, max_len=9, checkpointing=True
    ).checkpointing
    with pytest.raises(TypeError, match="checkpointing: expected true or false"):
        TransformerModel(config, checkpointing=1)  # type: ignore[arg-type]

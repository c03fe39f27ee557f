"""The LSTM block: a block like the others, with torch's LSTM inside."""

from __future__ import annotations

import pytest
import torch

from attention.base import UnsupportedError
from models import LSTMBlock, ModelConfig, TransformerBlock, TransformerModel


def tokens(batch: int = 3, length: int = 9) -> torch.Tensor:
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_it_is_torchs_lstm_between_residuals(norm: str, is_causal: bool) -> None:
    block = LSTMBlock(d_model=16, is_causal=is_causal, norm=norm).double()  # type: ignore[arg-type]
    x = tokens()
    if norm == "pre":
        inner = x + block.lstm(block.lstm_norm(x))[0]
        expected = inner + block.feed_forward(block.feed_forward_norm(inner))
    else:
        inner = block.lstm_norm(x + block.lstm(x)[0])
        expected = block.feed_forward_norm(inner + block.feed_forward(inner))
    torch.testing.assert_close(block(x, is_causal=is_causal), expected)


@pytest.mark.parametrize("is_causal", [False, True])
def test_padding_leaves_no_trace(is_causal: bool) -> None:
    block = LSTMBlock(d_model=16, is_causal=is_causal).double()
    x, mask = tokens(), torch.ones(3, 9, dtype=torch.bool)
    mask[1, :4], mask[2, ::2] = False, False
    out = block(x, is_causal=is_causal, key_padding_mask=mask)
    for row in range(3):
        alone = block(x[row : row + 1, mask[row]], is_causal=is_causal)
        torch.testing.assert_close(out[row : row + 1, mask[row]], alone)


def test_piece_by_piece_equals_at_once() -> None:
    block = LSTMBlock(d_model=16, is_causal=True).double()
    x, mask = tokens(), torch.ones(3, 9, dtype=torch.bool)
    mask[1, 2:5], mask[2, :] = False, False
    with torch.no_grad():
        state = block.init_state(batch_size=3, dtype=torch.float64)
        size = state.nbytes
        outs = [
            block(part, is_causal=True, key_padding_mask=some, state=state)
            for part, some in zip(x.split([3, 1, 5], 1), mask.split([3, 1, 5], 1), strict=True)
        ]
        whole = block(x, is_causal=True, key_padding_mask=mask)
    real = mask[:, :, None]
    torch.testing.assert_close(torch.cat(outs, 1).where(real, 0.0), whole.where(real, 0.0))
    assert state.lengths.tolist() == [9, 6, 0]
    assert state.nbytes == size


def test_what_it_cannot_do_is_refused() -> None:
    both, forwards = (LSTMBlock(d_model=16, is_causal=c).double() for c in (False, True))
    with pytest.raises(UnsupportedError, match="is_causal: this LSTM was built to read both ways"):
        both(tokens(), is_causal=True)
    with pytest.raises(UnsupportedError, match=r"is_causal: .*forwards only"):
        forwards(tokens())
    with pytest.raises(UnsupportedError, match="state: an LSTM that reads both ways"):
        both.init_state(batch_size=2)
    with pytest.raises(ValueError, match=r"d_model: .*got 15, not even"):
        LSTMBlock(d_model=15, is_causal=False)
    other = TransformerBlock(d_model=16, num_heads=2).init_state(batch_size=3, max_len=9)
    with pytest.raises(TypeError, match=r"state: expected an LSTM's, got one made by sdpa\("):
        forwards(tokens(), is_causal=True, state=other)
    with pytest.raises(ValueError, match=r"state: made for \[B, d_model\] = \[2, 16\]"):
        forwards(tokens(), is_causal=True, state=forwards.init_state(batch_size=2))
    config = ModelConfig(
        "encoder_decoder", vocab_size=9, d_model=16, num_layers=1, num_heads=2, d_ff=16, max_len=9
    )
    with pytest.raises(UnsupportedError, match="cross_attention: an LSTM block has none"):
        TransformerModel(config, attention="lstm")

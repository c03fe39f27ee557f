"""The LSTM in a block: torch's, against its formula, with a state, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import attention
from attention.base import UnsupportedError
from attention.problem import Problem
from models import (
    IdentityAttention,
    LSTMLayer,
    Memory,
    ModelConfig,
    RotaryPositions,
    TransformerBlock,
    TransformerEncoder,
    TransformerModel,
    TransformerStack,
)

SHAPE: dict[str, Any] = {
    "vocab_size": 9, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 16, "max_len": 9,
}  # fmt: skip
PROBLEM = Problem(batch=3, num_heads=2, head_dim=8, seq_len=9, key_len=9, num_kv_heads=2)


def tokens(batch: int = 3, length: int = 9) -> Tensor:
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(0)).double()


def padding() -> Tensor:
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, 2:5], mask[2, :] = False, False
    return mask


def layer(is_causal: bool = True, **options: Any) -> LSTMLayer:
    return LSTMLayer(d_model=16, is_causal=is_causal, **options).double()


def block(is_causal: bool = True, **options: Any) -> TransformerBlock:
    return TransformerBlock(
        d_model=16, num_heads=2, attention="lstm", attention_options={"is_causal": is_causal},
        **options,
    ).double()  # fmt: skip


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_a_block_has_torchs_lstm_where_attention_stands(norm: Any, is_causal: bool) -> None:
    made = block(is_causal, norm=norm)
    assert isinstance(made.attention, LSTMLayer)
    x, lstm = tokens(), made.attention.lstm
    if norm == "pre":
        inner = x + lstm(made.attention_norm(x))[0]
        expected = inner + made.feed_forward(made.feed_forward_norm(inner))
    else:
        inner = made.attention_norm(x + lstm(x)[0])
        expected = made.feed_forward_norm(inner + made.feed_forward(inner))
    torch.testing.assert_close(made(x, is_causal=is_causal), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("is_causal", [True, False])
def test_the_written_out_recurrence_is_torchs(is_causal: bool, bias: bool) -> None:
    made, x = layer(is_causal, bias=bias), tokens()
    assert made.lstm.bias is bias
    expected = nn.LSTM(16, made.lstm.hidden_size, bias=bias, batch_first=True).double()
    expected.load_state_dict(
        {n: p for n, p in made.lstm.state_dict().items() if not n.endswith("reverse")}
    )
    out = made.reference_rows(x, 5)
    assert out.shape == (3, 5, 16 if is_causal else 8)
    torch.testing.assert_close(out, expected(x)[0][:, :5])
    torch.testing.assert_close(made(x, is_causal=is_causal)[:, :5, : out.shape[2]], out)
    if is_causal:
        with pytest.raises(ValueError, match="backwards: this LSTM reads forwards only"):
            made.reference_rows(x, 5, backwards=True)
    else:
        last = made.reference_rows(x, 5, backwards=True)
        torch.testing.assert_close(made(x)[:, -5:, 8:], last)
    single = made.float().reference_rows(x.float(), 9)
    assert single.dtype == torch.float64
    with pytest.raises(ValueError, match="rows: expected at most the 9 tokens of x, got 10"):
        made.reference_rows(x, 10)


@pytest.mark.parametrize("is_causal", [False, True])
def test_padding_leaves_no_trace(is_causal: bool) -> None:
    made = block(is_causal)
    x, mask = tokens(), torch.ones(3, 9, dtype=torch.bool)
    mask[1, :4], mask[2, ::2] = False, False
    out = made(x, is_causal=is_causal, key_padding_mask=mask)
    for row in range(3):
        alone = made(x[row : row + 1, mask[row]], is_causal=is_causal)
        torch.testing.assert_close(out[row : row + 1, mask[row]], alone)
    assert not layer(is_causal)(x, is_causal=is_causal, key_padding_mask=mask)[~mask].any()


def test_piece_by_piece_equals_at_once() -> None:
    made, x, mask = block(), tokens(), padding()
    with torch.no_grad():
        state = made.init_state(batch_size=3, dtype=torch.float64)
        size = state.nbytes
        outs = [
            made(part, is_causal=True, key_padding_mask=some, state=state)
            for part, some in zip(x.split([3, 1, 5], 1), mask.split([3, 1, 5], 1), strict=True)
        ]
        whole = made(x, is_causal=True, key_padding_mask=mask)
    real = mask[:, :, None]
    torch.testing.assert_close(torch.cat(outs, 1).where(real, 0.0), whole.where(real, 0.0))
    assert state.lengths.tolist() == [9, 6, 0]
    assert (state.shortest, state.longest) == (0, 9)
    assert state.nbytes == size


def test_it_mixes_beside_cross_attention() -> None:
    made, x = block(cross_attention="sdpa"), tokens()
    memory = Memory(tokens(length=5).flip(1))
    assert made.cross_attention is not None
    inner = x + made.attention(made.attention_norm(x), is_causal=True)
    inner = inner + made.cross_attention(made.cross_attention_norm(inner), memory.hidden)
    expected = inner + made.feed_forward(made.feed_forward_norm(inner))
    torch.testing.assert_close(made(x, is_causal=True, memory=memory), expected)


@pytest.mark.parametrize("architecture", ["encoder", "decoder", "encoder_decoder"])
def test_a_model_builds_it_for_its_direction(architecture: Any) -> None:
    model = TransformerModel(
        ModelConfig(architecture, dropout_p=0.1, attention_dropout_p=0.1, **SHAPE),
        attention="lstm",
    )
    for stack, is_causal in ((model.encoder, False), (model.decoder, True)):
        for made in () if stack is None else stack.blocks:
            assert made.attention.is_causal is is_causal
    # What is given is kept, and a call that does not fit it is refused.
    encoder = TransformerEncoder(
        num_layers=1, d_model=16, num_heads=2, max_len=9, attention="lstm",
        attention_options={"is_causal": True},
    )  # fmt: skip
    assert encoder(tokens().float(), is_causal=True).isfinite().all()
    with pytest.raises(UnsupportedError, match=r"is_causal: .*forwards only; got False"):
        encoder(tokens().float())


def test_attention_can_be_swapped_for_it_and_back() -> None:
    model = TransformerModel(ModelConfig("decoder", attention_dropout_p=0.1, **SHAPE))
    swapped = model.with_attention("lstm")
    assert torch.equal(swapped.tokens.weight, model.tokens.weight)
    for said in (
        "decoder.blocks.0.attention.lstm.weight_ih_l0: new, drawn at random",
        "decoder.blocks.0.attention.qkv.q_proj.weight: not kept, lstm has none",
        "attention_dropout_p: 0.1 is not kept, lstm forms no weights to drop",
    ):
        assert said in swapped.swap_notes
    back = swapped.with_attention("sdpa")
    assert any(n.endswith("lstm.weight_ih_l0: not kept, sdpa has none") for n in back.swap_notes)


def test_a_built_layer_serves_as_one_by_name() -> None:
    built = layer()
    made = TransformerBlock(d_model=16, num_heads=2, attention=built).double()
    assert made.attention is built
    with pytest.raises(ValueError, match="attention_options: a built lstm takes no more options"):
        TransformerBlock(
            d_model=16, num_heads=2, attention=built, attention_options={"is_causal": True}
        )
    with pytest.raises(ValueError, match="the built lstm has d_model=16, the block needs 32"):
        TransformerBlock(d_model=32, num_heads=2, attention=built)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_cost_is_that_of_its_weights(is_causal: bool, bias: bool) -> None:
    made = layer(is_causal, bias=bias)
    shapes = [p.shape for p in made.lstm.parameters()]
    products = 2 * 27 * sum(s[0] * s[1] for s in shapes if len(s) == 2)
    held, moved = sum(s.numel() for s in shapes), 27 * 16
    forward, training = (made.cost(PROBLEM, mode) for mode in ("forward", "training"))  # type: ignore[arg-type]
    assert forward.pattern_ops == forward.executed_ops == products
    assert training.pattern_ops == training.executed_ops == 3 * products
    if is_causal:
        assert products == 27 * 2 * 8 * 16**2
    assert forward.exponentials == training.exponentials == 27 * 5 * 16
    assert forward.bytes == 4 * (2 * moved + held)
    assert training.bytes == 4 * (5 * moved + 3 * held)
    assert made.cost(replace(PROBLEM, dtype=torch.float64), "forward").bytes == 2 * forward.bytes
    assert dict(made.fixed_sizes()) == {}
    with FlopCounterMode(display=False) as counted:
        out = made(tokens().requires_grad_(), is_causal=is_causal)
    assert counted.get_total_flops() == products
    with FlopCounterMode(display=False) as counted:
        out.sum().backward()
    # The first token of each direction has no hidden state before it to hand a gradient to.
    first = 2 * 3 * sum(p.numel() for n, p in made.lstm.named_parameters() if "weight_hh" in n)
    assert counted.get_total_flops() == 2 * products - first


def test_what_it_cannot_do_is_refused() -> None:
    both, forwards = layer(is_causal=False), layer()
    with pytest.raises(UnsupportedError, match="is_causal: this LSTM was built to read both ways"):
        both(tokens(), is_causal=True)
    with pytest.raises(UnsupportedError, match=r"is_causal: .*forwards only"):
        forwards(tokens())
    with pytest.raises(UnsupportedError, match="state: an LSTM that reads both ways"):
        both.init_state(batch_size=2)
    with pytest.raises(ValueError, match=r"d_model: .*got 15, not even"):
        LSTMLayer(d_model=15, is_causal=False)
    causal = replace(PROBLEM, is_causal=True)
    assert both.unsupported_reasons(PROBLEM) == forwards.unsupported_reasons(causal) == []
    for problem, said in (
        (PROBLEM, "is_causal: this LSTM was built to read forwards only; got False"),
        (replace(causal, key_len=8), "k: lstm needs as many keys as queries"),
        (replace(causal, num_kv_heads=1), "num_kv_heads: lstm has no heads to group"),
    ):
        (reason,) = forwards.unsupported_reasons(problem)
        assert reason.startswith(said)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"num_kv_heads": 1}, UnsupportedError, "num_kv_heads: lstm has no heads to group; got 1"),
        ({"attention_dropout_p": 0.1}, UnsupportedError, "attention_dropout_p: lstm forms no"),
        ({"rotary": RotaryPositions(head_dim=8)}, UnsupportedError, "rotary: lstm has no queries"),
        ({"cross_attention": "lstm"}, UnsupportedError, "cross_attention: lstm attends within"),
        ({"attention_options": {}}, TypeError, "is_causal: lstm needs is_causal"),
        ({"attention_options": {"causal": True}}, TypeError, "causal: lstm has no such option"),
        ({"attention_options": {"d_model": 8}}, ValueError, "d_model is the block's own argument"),
    ],
)
def test_a_block_refuses_what_it_would_ignore(
    given: dict[str, Any], error: type[Exception], said: str
) -> None:
    options = {"attention": "lstm", "attention_options": {"is_causal": True}, **given}
    with pytest.raises(error, match=said):
        TransformerBlock(d_model=16, num_heads=2, **options)
    if "attention_options" not in given:
        with pytest.raises(error, match=said):
            TransformerStack(num_layers=1, d_model=16, num_heads=2, max_len=9, **options)


def test_a_state_that_does_not_fit_is_named() -> None:
    forwards, x = layer(), tokens()
    sdpa = attention.build("sdpa", num_heads=2, head_dim=8)
    new: dict[str, Any] = {"batch_size": 3, "dtype": torch.float64}
    wider = LSTMLayer(d_model=32, is_causal=True).init_state(**new)
    with torch.no_grad():
        for state, said in (
            (sdpa.init_state(max_len=9, **new), r"state: made by sdpa\(.*, this is lstm\("),
            (wider, r"state: made by lstm\(d_model=32\), this is lstm\(d_model=16\)"),
            (forwards.init_state(batch_size=2, dtype=torch.float64), "made for batch 2, x has 3"),
            (forwards.init_state(batch_size=3), "made for dtype torch.float32, x has torch.fl"),
            (forwards.init_state(device="meta", **new), "made for device meta, x has cpu"),
            (forwards.init_state(max_len=8, **new), "max_len: the state was made for 8 tokens"),
        ):
            with pytest.raises(ValueError, match=said):
                forwards(x, is_causal=True, state=state)
        with pytest.raises(TypeError, match="state: expected one by init_state, got int"):
            forwards(x, is_causal=True, state=3)  # type: ignore[arg-type]
        # Padding takes no room.
        full = forwards.init_state(max_len=8, **new)
        forwards(x, is_causal=True, key_padding_mask=torch.arange(9).expand(3, 9) < 8, state=full)
        assert full.longest == 8
    with pytest.raises(ValueError, match="x: a state keeps no graph"):
        forwards(x, is_causal=True, state=forwards.init_state(**new))
    with pytest.raises(TypeError, match="dtype: expected a floating-point dtype"):
        forwards.init_state(batch_size=1, dtype=torch.int64)


def test_autocast_runs_it() -> None:
    made, x = layer().float(), tokens().float()
    with torch.autocast("cpu", torch.bfloat16):
        half = made(x, is_causal=True)
    torch.testing.assert_close(half.float(), made(x, is_causal=True), atol=0.02, rtol=0.02)


def test_identity_decodes_with_a_state_that_keeps_nothing() -> None:
    made = TransformerBlock(
        d_model=16, num_heads=2, num_kv_heads=1,
        attention=IdentityAttention(num_heads=2, head_dim=8),
    ).double()  # fmt: skip
    x, mask = tokens(), padding()
    with torch.no_grad():
        state = made.init_state(batch_size=3, dtype=torch.float64)
        empty = state.nbytes
        outs = [
            made(part, is_causal=True, key_padding_mask=some, state=state)
            for part, some in zip(x.split([3, 1, 5], 1), mask.split([3, 1, 5], 1), strict=True)
        ]
        torch.testing.assert_close(
            torch.cat(outs, dim=1)[mask], made(x, is_causal=True, key_padding_mask=mask)[mask]
        )
    assert state.lengths.tolist() == [9, 6, 0]
    assert state.nbytes == empty == state.lengths.nbytes

"""Decoding with a state gives what one causal call gives: any chunks, any lengths in a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attention
from attention.base import Attention, UnsupportedError
from attention.functional import error_budget, relative_l2
from attention.state import DecodeState

HEADS, DIM, BATCH = 4, 8, 3

CASES: list[tuple[str, dict[str, Any]]] = [
    ("full", {}),
    ("sdpa", {}),
    ("longformer", {"window": 0}),
    ("longformer", {"window": 5}),
    ("longformer", {"window": 100}),
    ("longformer", {"window": 3, "dilation": 4}),
    ("longformer", {"window": 4, "dilation": (1, 3, 3, 2)}),
    ("bigbird", {"block_size": 4, "num_random_blocks": 2}),
    ("bigbird", {"block_size": 5, "num_random_blocks": 0}),
    ("bigbird", {"block_size": 4, "num_random_blocks": 1, "num_global_tokens": 3}),
    ("performer", {"num_features": 24, "seed": 1}),
    ("performer", {"num_features": 24, "seed": 1, "features": "relu"}),
]
IDS = [f"{name}-{'-'.join(f'{k}={v}' for k, v in o.items())}" for name, o in CASES]

CHUNKS = {
    "at once": [60],
    "token by token": [1] * 60,
    "prompt, then tokens": [41, *[1] * 19],
    "chunks": [1, 16, 3, 1, 1, 24, 14],
}


def build(name: str, options: dict[str, Any]) -> Attention:
    return attention.build(name, num_heads=HEADS, head_dim=DIM, **options).eval()


def draw(n: int, kv_heads: int = HEADS, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(n)
    shapes = ((BATCH, h, n, DIM) for h in (HEADS, kv_heads, kv_heads))
    return tuple(torch.randn(s, generator=generator, dtype=dtype) for s in shapes)


def new_state(module: Attention, like: Tensor, kv_heads: int = HEADS, room: int = 60) -> Any:
    return module.init_state(
        batch_size=like.shape[0], max_len=room, num_kv_heads=kv_heads, dtype=like.dtype
    )


def decode(
    module: Attention,
    inputs: tuple[Tensor, ...],
    sizes: list[int],
    state: DecodeState,
    mask: Tensor | None = None,
    first: dict[str, Any] | None = None,
) -> Tensor:
    """Feed the tokens in chunks; single ones by `step`."""
    outs, at = [], 0
    for size in sizes:
        q, k, v = (x[:, :, at : at + size] for x in inputs)
        given = {} if mask is None else {"key_padding_mask": mask[:, at : at + size]}
        if at == 0:
            given |= {n: _cut(x, size) for n, x in (first or {}).items()}
        call = module.step if size == 1 and not (at == 0 and first) else module.prefill
        outs.append(call(q, k, v, state, **given))
        at += size
    return torch.cat(outs, dim=2)


def _cut(x: Any, size: int) -> Any:
    return tuple(y[:, :, :size] for y in x) if isinstance(x, tuple) else x[:, :size]


@pytest.mark.parametrize("kv_heads", [HEADS, 2])
@pytest.mark.parametrize("sizes", CHUNKS.values(), ids=CHUNKS.keys())
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_decode_equals_one_causal_call(
    name: str, options: dict[str, Any], sizes: list[int], kv_heads: int
) -> None:
    module = build(name, options).double()
    inputs = draw(60, kv_heads)
    state = new_state(module, inputs[0], kv_heads)
    out = decode(module, inputs, sizes, state)
    torch.testing.assert_close(out, module.reference(*inputs, is_causal=True))
    assert state.lengths.tolist() == [60] * BATCH


@pytest.mark.parametrize("where", ["trailing", "leading", "holes"])
@pytest.mark.parametrize("sizes", CHUNKS.values(), ids=CHUNKS.keys())
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_sequences_of_different_lengths(
    name: str, options: dict[str, Any], sizes: list[int], where: str
) -> None:
    module = build(name, options).double()
    inputs = draw(60)
    mask = torch.ones(BATCH, 60, dtype=torch.bool)
    if where == "trailing":
        mask[1, 37:], mask[2, 2:] = False, False
    elif where == "leading":
        mask[1, :23], mask[2, :59] = False, False
    else:
        mask[1] = torch.rand(60, generator=torch.Generator().manual_seed(3)) < 0.6
        mask[2, ::2] = False
    state = new_state(module, inputs[0])
    out = decode(module, inputs, sizes, state, mask)
    assert out.isfinite().all()
    assert state.lengths.tolist() == mask.sum(dim=1).tolist()
    for row in range(BATCH):
        alone = tuple(x[row : row + 1, :, mask[row]] for x in inputs)
        expected = module.reference(*alone, is_causal=True)
        torch.testing.assert_close(out[row : row + 1, :, mask[row]], expected)


@pytest.mark.parametrize("sizes", [[20, 40], [20, *[1] * 40], [20, 7, 1, 32], [60]])
@pytest.mark.parametrize("options", [{"window": 5}, {"window": 4, "dilation": (1, 3, 3, 2)}])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_longformer_keeps_its_global_tokens(
    options: dict[str, Any], sizes: list[int], padded: bool, own: bool
) -> None:
    module = build("longformer", options).double()
    inputs = draw(60)
    is_global = torch.zeros(BATCH, 60, dtype=torch.bool)
    is_global[0, [0, 7]] = is_global[1, 3] = True
    mask = torch.ones(BATCH, 60, dtype=torch.bool)
    if padded:
        mask[1, 10:] = mask[2, :] = False
    first: dict[str, Any] = {"global_mask": is_global}
    if own:
        first["global_qkv"] = tuple(x + 0.5 for x in draw(60))
    state = new_state(module, inputs[0])
    out = decode(module, inputs, sizes, state, mask if padded else None, first)
    whole = module(*inputs, is_causal=True, key_padding_mask=mask if padded else None, **first)
    real = mask[:, None, :, None]
    torch.testing.assert_close(out.where(real, 0.0), whole.where(real, 0.0))


def test_longformer_refuses_later_global_tokens() -> None:
    module = build("longformer", {"window": 5})
    inputs = draw(10, dtype=torch.float32)
    state = new_state(module, inputs[0])
    module.prefill(*inputs, state)
    with pytest.raises(UnsupportedError, match=r"global_mask: .*first chunk.*10 tokens"):
        module.prefill(*inputs, state, global_mask=torch.ones(BATCH, 10, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_in_every_precision(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    module = build(name, options)
    inputs = draw(60, dtype=dtype)
    out = decode(module, inputs, [13, 1, 20, *[1] * 26], new_state(module, inputs[0]))
    assert out.dtype == dtype
    exact = module.double().reference(*(x.double() for x in inputs), is_causal=True)
    assert relative_l2(out.double(), exact) <= error_budget(dtype, 1e-3)


@pytest.mark.parametrize("sizes", [[8] * 32, [1] * 256, [100, 1, 155]])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_performer_far_out_of_range(sizes: list[int], scale: float) -> None:
    """Keys that grow and shrink by factors that no float holds."""
    module = build("performer", {"num_features": 24, "seed": 1}).double()
    q, k, v = draw(256)
    k = k * (1 + scale * torch.linspace(0, 6, 256).sin().abs()[:, None])
    out = decode(module, (q, k, v), sizes, new_state(module, q, room=256))
    torch.testing.assert_close(out, module(q, k, v, is_causal=True))


@pytest.mark.parametrize(
    ("name", "options", "grows"),
    [
        ("full", {}, True),
        ("sdpa", {}, True),
        ("bigbird", {"block_size": 4}, True),
        ("longformer", {"window": 5, "dilation": 2}, False),
        ("performer", {"num_features": 24}, False),
    ],
)
def test_what_a_state_takes(name: str, options: dict[str, Any], grows: bool) -> None:
    module = build(name, options)
    sizes = [module.init_state(batch_size=2, max_len=n).nbytes for n in (64, 4096)]
    assert (sizes[1] > 32 * sizes[0]) == grows
    assert grows or sizes[0] == sizes[1]
    if not grows:
        state = module.init_state(batch_size=BATCH)  # without end
        inputs = draw(60, dtype=torch.float32)
        for _ in range(3):
            module.prefill(*inputs, state)
        assert state.nbytes == module.init_state(batch_size=BATCH).nbytes
    elif name != "linformer":
        with pytest.raises(ValueError, match=r"max_len: .*keeps every key"):
            module.init_state(batch_size=2)


@pytest.mark.parametrize("inference", [False, True])
def test_a_state_goes_in_and_out_of_inference_mode(inference: bool) -> None:
    for name, options in CASES:
        module = build(name, options)
        inputs = draw(8, dtype=torch.float32)
        with torch.inference_mode(inference):
            state = new_state(module, inputs[0])
            module.prefill(*inputs, state)
        with torch.inference_mode(not inference):
            module.prefill(*inputs, state)
        module.prefill(*inputs, state)
        assert state.lengths.tolist() == [24] * BATCH


def test_no_state_without_a_reason() -> None:
    module = attention.build("linformer", num_heads=HEADS, head_dim=DIM, seq_len=64)
    with pytest.raises(UnsupportedError, match=r"state: linformer .*mixes the whole sequence"):
        module.init_state(batch_size=2, max_len=64)
    with pytest.raises(UnsupportedError, match=r"state: linformer"):
        module.step(*draw(1), None)  # type: ignore[arg-type]


def test_bad_input_is_named() -> None:
    module = build("sdpa", {})
    inputs = draw(4, dtype=torch.float32)
    state = module.init_state(batch_size=BATCH, max_len=6)
    other = build("longformer", {"window": 3}).init_state(batch_size=BATCH)
    narrow = module.init_state(batch_size=2, max_len=6)
    with pytest.raises(TypeError, match="state: expected one by init_state, got NoneType"):
        module.prefill(*inputs, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"state: made by longformer\(.*window=3.*this is sdpa"):
        module.prefill(*inputs, other)
    with pytest.raises(ValueError, match="state: made for batch 2, q and k have 3"):
        module.prefill(*inputs, narrow)
    with pytest.raises(ValueError, match=r"state: made for dtype torch.float32, .*bfloat16"):
        module.prefill(*(x.bfloat16() for x in inputs), state)
    with pytest.raises(ValueError, match="state: made for num_kv_heads 4, q and k have 2"):
        module.prefill(inputs[0], inputs[1][:, :2], inputs[2][:, :2], state)
    with pytest.raises(ValueError, match="q: a step takes one token, got 4"):
        module.step(*inputs, state)
    with pytest.raises(ValueError, match="k: expected as many tokens as q, 2"):
        module.prefill(inputs[0][:, :, :2], *inputs[1:], state)
    with pytest.raises(ValueError, match=r"q: a state keeps no graph; decode under torch.no_grad"):
        module.prefill(inputs[0].clone().requires_grad_(), *inputs[1:], state)
    with pytest.raises(TypeError, match="global_mask: sdpa takes no such input"):
        module.prefill(*inputs, state, global_mask=None)
    assert state.lengths.tolist() == [0] * BATCH
    module.prefill(*inputs, state)
    with pytest.raises(ValueError, match=r"max_len: .*made for 6 tokens, .*has 8"):
        module.prefill(*inputs, state)
    mask = torch.zeros(BATCH, 4, dtype=torch.bool)
    mask[0, :2] = True
    module.prefill(*inputs, state, key_padding_mask=mask)
    assert state.lengths.tolist() == [6, 4, 4]
    dropping = build("sdpa", {"dropout_p": 0.1}).train()
    with pytest.raises(ValueError, match=r"dropout_p: decoding drops no weight, got 0.1"):
        dropping.prefill(*inputs, dropping.init_state(batch_size=BATCH, max_len=6))
    for wrong, error, said in (
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 2, "max_len": 0}, ValueError, "max_len"),
        ({"batch_size": 2, "max_len": 4, "num_kv_heads": 3}, ValueError, "num_kv_heads"),
        ({"batch_size": 2, "max_len": 4, "dtype": torch.int64}, TypeError, "dtype"),
        ({"batch_size": 2, "max_len": 4, "dtype": "float32"}, TypeError, "dtype"),
    ):
        with pytest.raises(error, match=f"{said}: expected"):
            module.init_state(**wrong)

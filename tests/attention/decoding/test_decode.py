"""Decoding with a state gives what one causal call gives: any chunks, any lengths in a batch."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from helpers_covering import covering
from torch import Tensor

import attention
from attention.backends.bigbird import decoding as bigbird
from attention.base import Attention, UnsupportedError
from attention.decoding.state import DecodeState
from attention.functional import error_budget, relative_l2

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


@covering(("name, options", CASES), ("chunks", CHUNKS), ("kv_heads", [HEADS, 2]))
def test_decode_equals_one_causal_call(
    name: str, options: dict[str, Any], chunks: str, kv_heads: int
) -> None:
    module = build(name, options).double()
    inputs = draw(60, kv_heads)
    state = new_state(module, inputs[0], kv_heads)
    out = decode(module, inputs, CHUNKS[chunks], state)
    torch.testing.assert_close(out, module.reference(*inputs, is_causal=True))
    assert state.lengths.tolist() == [60] * BATCH


@covering(
    ("name, options", CASES), ("chunks", CHUNKS), ("where", ["trailing", "leading", "holes"])
)
def test_sequences_of_different_lengths(
    name: str, options: dict[str, Any], chunks: str, where: str
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
    padded = tuple(x.masked_fill(~mask[:, None, :, None], float("nan")) for x in inputs)
    out = decode(module, padded, CHUNKS[chunks], state, mask)
    assert out.isfinite().all()
    assert state.lengths.tolist() == mask.sum(dim=1).tolist()
    for row in range(BATCH):
        alone = tuple(x[row : row + 1, :, mask[row]] for x in inputs)
        expected = module.reference(*alone, is_causal=True)
        torch.testing.assert_close(out[row : row + 1, :, mask[row]], expected)


@covering(
    ("sizes", [[20, 40], [20, *[1] * 40], [20, 7, 1, 32], [60]]),
    ("options", [{"window": 5}, {"window": 4, "dilation": (1, 3, 3, 2)}]),
    ("padded", [False, True]),
    ("own", [False, True]),
)
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
    whole = module(*inputs, is_causal=True, key_padding_mask=mask if padded else None, **first)
    real = mask[:, None, :, None]
    inputs = tuple(x.masked_fill(~real, float("inf")) for x in inputs)
    if own:
        first["global_qkv"] = tuple(
            x.masked_fill(~real, float("nan")) for x in first["global_qkv"]
        )
    out = decode(module, inputs, sizes, state, mask if padded else None, first)
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


@covering(
    ("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    ("features", ["softmax", "relu"]),
    ("ragged", [False, True]),
)
def test_performer_steps_as_it_takes_chunks(
    features: str, ragged: bool, dtype: torch.dtype
) -> None:
    """One token goes its own way: the same output and sums, as keys grow by a thousand."""
    module = build("performer", {"num_features": 24, "seed": 1, "features": features})
    module = module.double() if dtype == torch.float64 else module
    q, k, v = draw(64)
    k = k * torch.logspace(-1, 1.5 if features == "softmax" else 2, 64, dtype=k.dtype)[:, None]
    inputs = tuple(x.to(dtype) for x in (q, k, v))
    mask = torch.ones(BATCH, 64, dtype=torch.bool)
    if ragged:
        mask = torch.rand(BATCH, 64, generator=torch.Generator().manual_seed(5)) < 0.7
        mask[2, :30] = False  # a sequence that begins late
    given = mask if ragged else None
    one, many = (new_state(module, inputs[0], room=64) for _ in range(2))
    moved, outs = 0, []
    for at in range(64):
        q1, k1, v1 = (x[:, :, at : at + 1] for x in inputs)
        held = one.top.clone()
        given_1 = None if given is None else given[:, at : at + 1]
        outs.append(module.step(q1, k1, v1, one, key_padding_mask=given_1))
        moved += int((one.top > held).any())
    assert (moved > 20) == (features == "softmax")
    chunks = decode(module, inputs, [2, 30, 32], many, given)
    budget = error_budget(dtype, 2e-5 if dtype == torch.float32 else 1e-12)
    if dtype == torch.bfloat16:
        budget = 0.02  # chunks multiply their features in it, steps in float32
    real = mask[:, None, :, None]
    stepped = torch.cat(outs, dim=2)
    assert stepped.dtype == dtype
    assert stepped.isfinite().all()
    close = relative_l2(stepped.where(real, 0.0).double(), chunks.where(real, 0.0).double())
    assert close <= budget
    torch.testing.assert_close(one.top, many.top, rtol=1e-4, atol=1e-4)
    for name in ("s", "z"):
        assert relative_l2(getattr(one, name), getattr(many, name)) <= max(budget, 1e-3)


BIGBIRDS: list[dict[str, Any]] = [
    {"block_size": 4, "num_random_blocks": 2},
    {"block_size": 4, "num_random_blocks": 0},
    {"block_size": 4, "num_random_blocks": 3, "num_global_tokens": 6},
    {"block_size": 1, "num_random_blocks": 2},
    {"block_size": 100, "num_global_tokens": 3},
]


@covering(
    ("kv_heads", [HEADS, 1]),
    ("options", BIGBIRDS),
    ("ragged", [False, True]),
    ("elements", [1, 2**11, 2**22]),
)
def test_bigbird_chunks_begin_and_end_anywhere(
    options: dict[str, Any],
    kv_heads: int,
    ragged: bool,
    elements: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In and between blocks, across one and many, a row at a time or more."""
    monkeypatch.setitem(bigbird.GATHERED_ELEMENTS, "cpu", elements)
    module = build("bigbird", options).double()
    inputs = draw(157, kv_heads)
    mask = torch.ones(BATCH, 157, dtype=torch.bool)
    if ragged:
        mask[1] = torch.rand(157, generator=torch.Generator().manual_seed(3)) < 0.6
        mask[2, :50] = False
    expected = module.reference(*inputs, is_causal=True)
    for sizes in ([1, 2, 1, 3, 5, 1, 90, 2, 52], [8, 4, 64, 1, 80], [3, 154], [6, 4, 1, 1, 145]):
        state = new_state(module, inputs[0], kv_heads, room=157)
        if not ragged:
            out = decode(module, inputs, sizes, state)
            torch.testing.assert_close(out, expected)
            continue
        out = decode(module, inputs, sizes, state, mask)
        for row in range(BATCH):
            alone = tuple(x[row : row + 1, :, mask[row]] for x in inputs)
            whole = module.reference(*alone, is_causal=True)
            torch.testing.assert_close(out[row : row + 1, :, mask[row]], whole)


def test_bigbird_has_room_for_global_tokens_alone() -> None:
    module = build("bigbird", {"block_size": 4, "num_global_tokens": 9}).double()
    inputs = draw(8)
    out = decode(module, inputs, [2, 1, 4, 1], new_state(module, inputs[0], room=8))
    torch.testing.assert_close(out, module.reference(*inputs, is_causal=True))


# -- marks ---------------------------------------------------------------------------------------


@covering(
    ("name, options", CASES),
    ("before", [1, 7, 23, 24]),
    ("ragged", [False, True]),
    ("dtype", [torch.float32, torch.bfloat16]),
)
def test_a_state_goes_back_to_a_mark(
    name: str, options: dict[str, Any], before: int, ragged: bool, dtype: torch.dtype
) -> None:
    """The same tokens give the same bits again, whatever was seen in between."""
    module = build(name, options)
    inputs = draw(60, dtype=dtype)
    other = draw(61, dtype=dtype)
    mask = torch.ones(BATCH, 60, dtype=torch.bool)
    if ragged:
        mask[1, ::3], mask[2, 2:20] = False, False
    state = new_state(module, inputs[0])
    decode(module, tuple(x[:, :, :before] for x in inputs), [before], state, mask[:, :before])
    mark = state.mark()
    held = {n: x.clone() for n, x in vars(state).items() if isinstance(x, Tensor)}
    counted = state.lengths.clone(), state.shortest, state.longest
    rest = tuple(x[:, :, before:] for x in inputs)

    def go_on(sizes: list[int], state: DecodeState = state) -> Tensor:
        out = decode(module, rest, sizes, state, mask[:, before:] if ragged else None)
        return out.where(mask[:, None, before : before + out.shape[2], None], 0.0)

    plans = [[1] * 20, [1, 11, 1, 1], [13, *[1] * 8]]
    found = []
    for sizes in plans:
        found.append(go_on(sizes))
        state.rewind(mark)
        assert torch.equal(state.lengths, counted[0])
        assert (state.shortest, state.longest) == counted[1:]
        for tensor, value in held.items():
            if tensor not in state.append_only:
                assert torch.equal(getattr(state, tensor), value)
    for sizes, once in zip(plans, found, strict=True):
        # Other tokens in between, which end in another place.
        decode(module, other, [3, 1, 1, 17, 1], state)
        state.rewind(mark)
        assert torch.equal(go_on(sizes), once)
        state.rewind(mark)
    fresh = new_state(module, inputs[0])
    decode(module, tuple(x[:, :, :before] for x in inputs), [before], fresh, mask[:, :before])
    assert torch.equal(go_on(plans[0], fresh), found[0])


def test_global_tokens_are_taken_back_too() -> None:
    module = build("longformer", {"window": 5})
    inputs = draw(20, dtype=torch.float32)
    is_global = torch.zeros(BATCH, 20, dtype=torch.bool)
    is_global[:, 3] = True
    state = new_state(module, inputs[0])
    empty = state.mark()
    plain = module.prefill(*inputs, state)
    state.rewind(empty)
    module.prefill(*inputs, state, global_mask=is_global)
    assert state.globals is not None
    state.rewind(empty)
    assert state.globals is None
    assert torch.equal(module.prefill(*inputs, state), plain)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_chosen_sequences_go_on_as_they_would_alone(
    name: str, options: dict[str, Any], uneven: bool
) -> None:
    module, kv_heads = build(name, options).double(), 2
    inputs = draw(60, kv_heads)
    chosen = torch.tensor([2, 0, 2, 1])  # more than there were; then one is left out
    mask = torch.ones(BATCH, 60, dtype=torch.bool)
    if uneven:
        mask[1, 11:40] = mask[2, 30:40] = False
    state = new_state(module, inputs[0], kv_heads)
    decode(module, tuple(x[:, :, :40] for x in inputs), [31, *[1] * 9], state, mask[:, :40])
    place = state.mark()
    for index in (chosen, torch.tensor([3, 1, 0])):
        state.select(index)
    order = chosen[[3, 1, 0]]  # 1, 0, 2
    rest = tuple(x[order, :, 40:] for x in inputs)
    out = decode(module, rest, [1, 7, *[1] * 12], state)
    assert state.lengths.tolist() == mask[order].sum(dim=1).tolist()
    assert (state.shape.batch_size, state.shortest) == (3, int(mask.sum(dim=1).min()))
    for row, source in enumerate(order):
        alone = tuple(x[source : source + 1, :, mask[source]] for x in inputs)
        expected = module.reference(*alone, is_causal=True)[:, :, -20:]
        torch.testing.assert_close(out[row : row + 1], expected)
    with pytest.raises(ValueError, match="mark: later than one"):
        state.rewind(place)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ([0, 1], TypeError, "indices: expected a tensor of int64, got list"),
        (torch.tensor([0.0]), TypeError, r"indices: .*got torch\.float32"),
        (torch.tensor([[0]]), ValueError, r"indices: expected \[B'\] .*got \(1, 1\)"),
        (torch.tensor([0, BATCH]), ValueError, "indices: expected sequences from 0 to 2, got 3"),
        (torch.tensor([0, -1]), ValueError, "indices: .*got -1"),
    ],
)
def test_bad_choices_of_sequences_are_named(given: Any, error: type[Exception], said: str) -> None:
    state = new_state(build("full", {}), draw(4)[0])
    with pytest.raises(error, match=said):
        state.select(given)


def test_chosen_sequences_keep_their_global_tokens() -> None:
    module = build("longformer", {"window": 3}).double()
    q, k, v = draw(40)
    is_global = torch.zeros(BATCH, 20, dtype=torch.bool)
    is_global[0, [0, 7]] = is_global[1, 3] = True
    first = tuple(x[:, :, :20] for x in (q, k, v))
    states = [new_state(module, q) for _ in range(2)]
    for state in states:
        module.prefill(*first, state, global_mask=is_global)
    index = torch.tensor([1, 2, 1, 0])
    states[0].select(index)
    rest = tuple(x[:, :, 20:] for x in (q, k, v))
    expected = decode(module, rest, [1] * 20, states[1])
    ours = decode(module, tuple(x[index] for x in rest), [1] * 20, states[0])
    torch.testing.assert_close(ours, expected[index])


def test_marks_that_cannot_be_gone_back_to() -> None:
    module = build("sdpa", {})
    inputs = draw(4, dtype=torch.float32)
    state, other = new_state(module, inputs[0]), new_state(module, inputs[0])
    first = state.mark()
    module.prefill(*inputs, state)
    second = state.mark()
    module.prefill(*inputs, state)
    state.rewind(second)
    state.rewind(first)
    state.rewind(first)
    with pytest.raises(ValueError, match=r"mark: later than one .* tokens are gone"):
        state.rewind(second)
    with pytest.raises(ValueError, match=r"mark: of another state, made by sdpa"):
        state.rewind(other.mark())
    third = state.mark()
    assert third.serial > second.serial
    with pytest.raises(ValueError, match="mark: later than one"):
        state.rewind(second)
    state.rewind(third)
    assert state.lengths.tolist() == [0] * BATCH


def test_marks_of_two_branches_are_told_apart() -> None:
    """Each way back cuts off what was behind it, for good, whatever was marked since."""
    state = new_state(build("sdpa", {}), draw(4)[0])
    first = state.mark()
    cut = [state.mark(), state.mark()]
    state.rewind(first)
    kept = state.mark()
    cut.append(state.mark())
    state.rewind(kept)
    newest = state.mark()
    for mark in cut:
        with pytest.raises(ValueError, match="mark: later than one"):
            state.rewind(mark)
    for mark in (newest, kept, first, first):
        state.rewind(mark)
    for mark in (newest, kept, *cut):
        with pytest.raises(ValueError, match="mark: later than one"):
            state.rewind(mark)


def test_marks_that_nobody_holds_take_no_room() -> None:
    state = new_state(build("sdpa", {}), draw(4)[0])
    first = state.mark()
    for _ in range(1000):
        state.mark()
    gc.collect()
    assert len(state._marks) == 1
    state.rewind(first)


def test_a_copy_of_a_state_goes_its_own_way() -> None:
    module, inputs = build("sdpa", {}), draw(4, dtype=torch.float32)
    state = new_state(module, inputs[0])
    mark = state.mark()
    twin = copy.deepcopy(state)
    module.prefill(*inputs, twin)
    assert (state.longest, twin.longest) == (0, 4)
    with pytest.raises(ValueError, match="mark: of another state"):
        twin.rewind(mark)
    again = twin.mark()
    module.prefill(*inputs, twin)
    twin.rewind(again)
    assert twin.lengths.tolist() == [4] * BATCH


@pytest.mark.parametrize("name", ["full", "sdpa", "bigbird"])
def test_marking_a_cache_copies_no_keys(name: str) -> None:
    module = build(name, {})
    state = module.init_state(batch_size=2, max_len=4096)
    module.prefill(*(x[:2] for x in draw(70, dtype=torch.float32)), state)
    q, k, v = (x[:2, :, :1] for x in draw(70, dtype=torch.float32))
    module.step(q, k, v, state)
    kept = [x for x in state.mark().content.values() if isinstance(x, Tensor)]
    assert sum(x.nbytes for x in kept) < 100


# -- whose a state is ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("longformer", {"window": 5, "dilation": 1}, {"window": 5, "dilation": 3}),
        (
            "longformer",
            {"window": 4, "dilation": (1, 3, 3, 2)},
            {"window": 4, "dilation": (3, 1, 3, 2)},
        ),
        ("bigbird", {"block_size": 4, "seed": 0}, {"block_size": 4, "seed": 1}),
        ("performer", {"num_features": 24, "seed": 0}, {"num_features": 24, "seed": 1}),
        ("performer", {"num_features": 24}, {"num_features": 24}),
    ],
)
def test_a_state_of_other_options_is_refused(
    name: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    inputs, makes = draw(10, dtype=torch.float32), build(name, one)
    state = new_state(makes, inputs[0])
    makes.prefill(*inputs, state)
    with pytest.raises(ValueError, match=rf"state: made by {name}\(.*, this is {name}\("):
        build(name, other).prefill(*inputs, state)
    assert state.longest == 10
    copy.deepcopy(makes).prefill(*inputs, state)
    makes.prefill(*inputs, state)


def test_a_state_goes_with_the_features_that_made_it() -> None:
    inputs, options = draw(10, dtype=torch.float32), {"num_features": 24}
    token = tuple(x[:, :, :1] for x in inputs)
    first = build("performer", {**options, "seed": 0})
    state = new_state(first, inputs[0])
    first.prefill(*inputs, state)
    for _ in range(2):  # of which the second is checked lightly
        first.step(*token, state)
    twin, loaded = copy.deepcopy(first), build("performer", {**options, "seed": 1})
    elsewhere = new_state(loaded, inputs[0])
    for _ in range(2):
        loaded.step(*token, elsewhere)
    loaded.load_state_dict(first.state_dict())
    for same in (loaded, twin, first, first.double().float()):
        same.step(*token, state)
    with pytest.raises(ValueError, match="state: made by performer"):
        loaded.step(*token, elsewhere)
    first.redraw()
    for _ in range(2):
        with pytest.raises(ValueError, match="state: made by performer"):
            first.step(*token, state)
    twin.step(*token, state)
    twin.redraw()
    assert twin.shown() == first.shown()
    assert copy.deepcopy(twin).half().shown() != first.shown()  # rounded
    first.load_state_dict(loaded.state_dict())
    first.step(*token, state)


@covering(("name, options", CASES), ("size", [1, 7]), ("kv_heads", [HEADS, 1]))
def test_a_first_chunk_of_padding_leaves_no_trace(
    name: str, options: dict[str, Any], size: int, kv_heads: int
) -> None:
    module = build(name, options).double()
    inputs, padding = draw(30, kv_heads), tuple(x[:, :, :size] for x in draw(31, kv_heads))
    state = new_state(module, inputs[0], kv_heads)
    none = torch.zeros(BATCH, size, dtype=torch.bool)
    for mask in (none, none):
        out = module.prefill(*padding, state, key_padding_mask=mask)
        assert out.isfinite().all()
        assert state.longest == 0
    one = none.clone()
    one[1] = True  # then in all sequences but one
    module.prefill(*padding, state, key_padding_mask=one)
    assert state.lengths.tolist() == [0, size, 0]
    out = decode(module, inputs, [11, 1, 1, 17], state)
    for row in range(BATCH):
        alone = tuple(x[row : row + 1] for x in inputs)
        if row == 1:
            before = (x[1:2] for x in padding)
            alone = tuple(torch.cat(pair, dim=2) for pair in zip(before, alone, strict=True))
        expected = module.reference(*alone, is_causal=True)[:, :, -30:]
        torch.testing.assert_close(out[row : row + 1], expected)


# -- modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_steps_in_every_mode(name: str, options: dict[str, Any]) -> None:
    """One state, token by token, in turn under inference mode, without grad and with it."""
    module = build(name, options).double()
    inputs = draw(60)
    state, outs = new_state(module, inputs[0]), []
    modes = (torch.inference_mode, torch.no_grad, torch.enable_grad)
    for at in range(60):
        with modes[at % 3]():
            q, k, v = (x[:, :, at : at + 1].clone() for x in inputs)
            outs.append(module.step(q, k, v, state).clone())
        assert not outs[-1].requires_grad
    expected = module.reference(*inputs, is_causal=True)
    torch.testing.assert_close(torch.cat([x.clone() for x in outs], dim=2), expected)
    q, k, v = (x[:, :, :1] for x in draw(61))
    free = module.init_state(batch_size=BATCH, max_len=2, dtype=torch.float64)
    module.step(q, k, v, free)
    for wants in range(3):  # a step like the last one, but for the graph
        given = [x.clone().requires_grad_(n == wants) for n, x in enumerate((q, k, v))]
        with pytest.raises(ValueError, match="q: a state keeps no graph"):
            module.step(*given, free)
        with torch.no_grad():
            mark = free.mark()
            module.step(*given, free)
            free.rewind(mark)
    module.step(q, k, v, free)
    with pytest.raises(ValueError, match=r"max_len: .*made for 2 tokens, .*has 3"):
        module.step(q, k, v, free)
    assert free.lengths.tolist() == [2] * BATCH


def test_a_step_unlike_the_last_is_checked() -> None:
    module = build("sdpa", {"dropout_p": 0.1})
    q, k, v = (x[:, :, :1] for x in draw(4, dtype=torch.float32))
    state = new_state(module, q)
    module.step(q, k, v, state)
    module.step(q, k, v, state)
    other = new_state(build("longformer", {"window": 3}), q)  # of the same shape
    calls: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        ((q, k, v, None), TypeError, "state: expected one by init_state"),
        ((q, k, v, other), ValueError, "state: made by longformer"),
        ((q, k, v, module.init_state(batch_size=2, max_len=6)), ValueError, "made for batch 2"),
        ((q[:2], k, v, state), ValueError, "k: expected"),
        ((q, k[:, :2], v, state), ValueError, "v: expected the shape of k"),
        ((q, k, v.double(), state), ValueError, "v: expected dtype"),
        ((q.double(), k.double(), v.double(), state), ValueError, "made for dtype"),
        ((q, k, [v], state), TypeError, "v: expected a tensor"),
    ]
    for given, error, said in calls:
        with pytest.raises(error, match=said):
            module.step(*given)
        module.step(q, k, v, state)
    with pytest.raises(TypeError, match="key_padding_mask: expected dtype bool"):
        module.step(q, k, v, state, key_padding_mask=torch.ones(BATCH, 1))
    module.train()
    with pytest.raises(ValueError, match="dropout_p: decoding drops no weight"):
        module.step(q, k, v, state)
    assert state.lengths.tolist() == [10] * BATCH


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_autocast_casts_as_a_call_does(name: str, options: dict[str, Any]) -> None:
    module = build(name, options)
    inputs = draw(30, dtype=torch.float32)
    half = tuple(x.bfloat16() for x in inputs)
    sizes = [11, 1, 1, 8, *[1] * 9]
    plain = decode(module, half, sizes, new_state(module, half[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = decode(module, inputs, sizes, new_state(module, half[0]))
        wide = new_state(module, inputs[0])
        with pytest.raises(ValueError, match=r"state: made for dtype torch.float32, .*bfloat16"):
            module.prefill(*inputs, wide)
        double = tuple(x.double() for x in inputs)  # stays
        precise = build(name, options).double()
        kept = decode(precise, double, sizes, new_state(precise, double[0]))
        with pytest.raises(ValueError, match=r"state: made for dtype torch.float64, .*bfloat16"):
            precise.prefill(double[0], inputs[1], inputs[2], new_state(precise, double[0]))
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, plain)
    torch.testing.assert_close(kept, precise.reference(*double, is_causal=True))


def test_init_state_refuses_what_a_call_would() -> None:
    flex = build("bigbird", {"kernel": "flex", "block_size": 20})
    with pytest.raises(UnsupportedError, match="block_size: kernel 'flex' needs a multiple of"):
        flex.init_state(batch_size=2, max_len=64)
    pinned = build("sdpa", {"kernel": "efficient"})
    with pytest.raises(UnsupportedError, match="kernel: efficient does not exist on cpu"):
        pinned.init_state(batch_size=2, max_len=64)
    with pytest.raises(UnsupportedError, match=r"device: xformers' .* has no CPU kernel"):
        build("xformers", {}).init_state(batch_size=2, max_len=64)
    with pytest.raises(UnsupportedError, match=r"dtype: sdpa on cpu takes .*, not float8"):
        build("sdpa", {}).init_state(batch_size=2, max_len=64, dtype=torch.float8_e4m3fn)


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
    else:
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

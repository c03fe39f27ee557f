"""Generation: the same tokens with and without a state, in batches of different lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_covering import covering
from torch import Tensor

from attention.base import UnsupportedError
from attention.functional import relative_l2
from models import ModelConfig, TransformerModel, generate
from models.sampling import Choice

SHAPE = {
    "vocab_size": 50, "d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 48, "max_len": 64,
}  # fmt: skip

BACKENDS: list[tuple[str, dict[str, Any]]] = [
    ("full", {}),
    ("sdpa", {}),
    ("longformer", {"window": 4}),
    ("bigbird", {"block_size": 4, "num_random_blocks": 1}),
    ("performer", {"num_features": 32, "seed": 0}),
]


def model(
    attention: str = "sdpa",
    options: dict[str, Any] | None = None,
    architecture: Any = "decoder",
    decoder: tuple[str, dict[str, Any]] | None = None,
    **changes: Any,
) -> TransformerModel:
    torch.manual_seed(0)
    config = ModelConfig(architecture, **{**SHAPE, "tied": False, **changes})
    chosen: dict[str, Any] = {"attention": attention, "attention_options": options}
    if decoder is not None:
        chosen |= {"decoder_attention": decoder[0], "decoder_attention_options": decoder[1]}
    made = TransformerModel(config, **chosen).double()
    with torch.no_grad():
        made.tokens.weight.mul_(20)  # logits that differ
    return made


def prompts() -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, 50, (3, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, 11, dtype=torch.bool)
    mask[1, 6:] = False
    mask[2, :9] = False
    return ids, mask


@covering(
    ("positions", ["learned", "sinusoidal", "rotary"]),
    ("sampled", [False, True]),
    ("name, options", BACKENDS),
)
def test_same_tokens_with_and_without_a_state(
    name: str, options: dict[str, Any], sampled: bool, positions: Any
) -> None:
    made = model(name, options, positions=positions)
    ids, mask = prompts()
    how: dict[str, Any] = {"max_new_tokens": 20, "key_padding_mask": mask}
    if sampled:
        how |= {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 3}
    with_state, without = (generate(made, ids, use_state=use, **how) for use in (True, False))
    assert torch.equal(with_state.ids, without.ids)
    assert with_state.ids.shape == (3, 20)
    assert len(with_state.ids.unique()) > 3
    for row in range(3):  # as if alone
        if not sampled:
            alone = generate(made, ids[row : row + 1, mask[row]], max_new_tokens=20)
            assert torch.equal(alone.ids[0], with_state.ids[row])


def beam_search(
    made: TransformerModel, first: Tensor, beams: int, steps: int, state: Any, memory: Any = None
) -> tuple[Tensor, Tensor]:
    """Search behind one prompt `first` ``[1, N]``; without a state all is computed anew."""
    ids, scores, read = first, torch.zeros(1, dtype=torch.float64), first
    for _ in range(steps):
        known = None
        if state is None and memory is not None:
            known = memory.of(torch.zeros_like(ids[:, 0]))
        logits = made.decode(read if state is not None else ids, state=state, memory=known)
        each = scores[:, None] + logits[:, -1].log_softmax(dim=-1)
        scores, best = each.flatten().topk(beams)
        source, token = best // logits.shape[2], best % logits.shape[2]
        if state is not None:
            state.select(source)
        read = token[:, None]
        ids = torch.cat([ids[source], read], dim=1)
    return ids, scores


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize(
    ("name", "options"), [*BACKENDS, ("lstm", {})], ids=[*(name for name, _ in BACKENDS), "lstm"]
)
@torch.no_grad()
def test_beam_search_by_a_state_is_that_without(
    name: str, options: dict[str, Any], architecture: Any
) -> None:
    if architecture == "decoder":
        made = model(name, options)
    else:
        made = model("sdpa", None, architecture, decoder=(name, options))
    prompt, mask = prompts()
    first, memory, state = prompt[:1], None, made.init_state(batch_size=1)
    if architecture == "encoder_decoder":
        memory, first = made.encode(prompt[1:2], key_padding_mask=mask[1:2]), torch.tensor([[2]])
        state.memory = made.encode(prompt[1:2], key_padding_mask=mask[1:2])
        state.memory.projected = {}
    by_state = beam_search(made, first, 4, 9, state, memory)
    without = beam_search(made, first, 4, 9, None, memory)
    assert torch.equal(by_state[0], without[0])
    torch.testing.assert_close(by_state[1], without[1])
    assert len(by_state[0].unique(dim=0)) == 4


@pytest.mark.parametrize("use_state", [True, False])
def test_an_encoder_decoder_answers(use_state: bool) -> None:
    made = model(architecture="encoder_decoder")
    ids, mask = prompts()
    found = generate(
        made, ids, max_new_tokens=12, key_padding_mask=mask, start_id=2, use_state=use_state
    )
    so_far = torch.full((3, 1), 2)
    for _ in range(12):
        logits = made(ids, so_far, key_padding_mask=mask)
        so_far = torch.cat([so_far, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(found.ids, so_far[:, 1:])


@pytest.mark.parametrize("use_state", [True, False])
def test_a_stop_token_ends_a_sequence(use_state: bool) -> None:
    made = model()
    ids, mask = prompts()
    free = generate(made, ids, max_new_tokens=20, key_padding_mask=mask).ids
    stop = int(free[0, 4])
    found = generate(
        made, ids, max_new_tokens=20, key_padding_mask=mask, stop_ids=[stop], pad_id=49,
        use_state=use_state,
    )  # fmt: skip
    for row in range(3):
        hits = (free[row] == stop).nonzero()
        length = int(hits[0]) + 1 if len(hits) else found.ids.shape[1]
        assert int(found.lengths[row]) == length
        assert torch.equal(found.ids[row, :length], free[row, :length])
        assert (found.ids[row, length:] == 49).all()


def test_seeds_and_modes() -> None:
    made = model(dropout_p=0.5).train()
    ids, mask = prompts()
    how: dict[str, Any] = {"max_new_tokens": 20, "key_padding_mask": mask, "temperature": 1.0}
    first, again, other = (generate(made, ids, seed=seed, **how).ids for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert made.training


def test_a_state_counts_what_is_read_of_the_encoder() -> None:
    made, (ids, mask) = model(architecture="encoder_decoder", num_kv_heads=2), prompts()
    with torch.no_grad():
        memory = made.encode(ids, key_padding_mask=mask)
        state = made.init_state(batch_size=3, max_len=5)
        alone = state.nbytes
        assert alone == sum(layer.nbytes for layer in state.layers)
        state.memory = memory
        assert state.nbytes == alone
        unprojected = made.decode(ids[:, :4], memory=memory)
        memory.projected = {}
        assert state.nbytes == alone
        # Keys and values of two layers, 2 heads of 8 channels, float64.
        for _ in range(2):
            torch.testing.assert_close(made.decode(ids[:, :4], memory=memory), unprojected)
            assert state.nbytes == alone + 2 * 2 * 3 * 11 * 2 * 8 * 8
        assert len(memory.projected) == 2


@pytest.mark.parametrize(("positions", "window"), [("learned", 1), ("rotary", 4)])
def test_global_tokens_of_the_prompt_act_with_and_without_a_state(
    positions: Any, window: int
) -> None:
    made = model("longformer", {"window": window}, positions=positions)
    ids, mask = prompts()
    is_global = torch.zeros_like(mask)
    is_global[:, [0, 3, 10]] = True
    is_global[0, 5] = True
    how: dict[str, Any] = {"max_new_tokens": 10, "key_padding_mask": mask}
    with_state, without = (
        generate(made, ids, use_state=use, global_mask=is_global, **how).ids
        for use in (True, False)
    )
    assert torch.equal(with_state, without)
    assert not torch.equal(with_state, generate(made, ids, **how).ids)
    assert torch.equal(
        generate(made, ids, global_mask=None, **how).ids, generate(made, ids, **how).ids
    )
    for row in range(3):  # as if alone, and as the whole sequence computes it
        own = mask[row]
        prompt, told = ids[row : row + 1, own], is_global[row : row + 1, own]
        alone = made.generate(prompt, max_new_tokens=10, global_mask=told).ids[0]
        assert torch.equal(alone, with_state[row])
        whole = torch.cat([prompt[0], alone])[None]
        seen = torch.zeros_like(whole, dtype=torch.bool)
        seen[:, : told.shape[1]] = told
        logits = made(whole, global_mask=seen)[0, prompt.shape[1] - 1 : -1]
        assert torch.equal(logits.argmax(-1), alone)


@pytest.mark.parametrize("use_state", [True, False])
def test_an_encoder_reads_its_own_inputs_of_the_call(use_state: bool) -> None:
    torch.manual_seed(0)
    config = ModelConfig("encoder_decoder", **{**SHAPE, "tied": False})
    made = TransformerModel(
        config, attention="longformer", attention_options={"window": 1}, decoder_attention="sdpa"
    ).double()
    with torch.no_grad():
        made.tokens.weight.mul_(20)
    ids, mask = prompts()
    is_global = torch.zeros_like(mask)
    is_global[:, ::3] = True
    found = generate(
        made, ids, max_new_tokens=8, key_padding_mask=mask, start_id=2, use_state=use_state,
        global_mask=is_global,
    )  # fmt: skip
    so_far = torch.full((3, 1), 2)
    for _ in range(8):
        logits = made(ids, so_far, key_padding_mask=mask, global_mask=is_global)
        so_far = torch.cat([so_far, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(found.ids, so_far[:, 1:])


def test_an_input_of_the_call_that_does_not_fit_is_named() -> None:
    ids, _ = prompts()
    for name, given, error, said in (
        (
            "sdpa",
            {"temprature": 0.5},
            TypeError,
            "temprature: no argument of generate.*sdpa takes none",
        ),
        ("lstm", {"global_mask": None}, TypeError, "global_mask: no argument .*lstm takes none"),
        ("longformer", {"global_qkv": None}, TypeError, "global_qkv: .* also takes global_mask"),
        ("longformer", {"global_mask": ids}, TypeError, "global_mask: expected dtype bool"),
        (
            "longformer",
            {"global_mask": ids[:, 1:] > 0},
            ValueError,
            r"global_mask: expected shape \(3, 11\)",
        ),
    ):
        with pytest.raises(error, match=said):
            generate(model(name), ids, max_new_tokens=2, **given)  # type: ignore[arg-type]


def test_choices() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).repeat(2000, 1)
    generator = torch.Generator().manual_seed(0)
    assert set(Choice().next_token(logits, generator).tolist()) == {3}
    assert set(Choice(1.0, top_k=2).next_token(logits, generator).tolist()) == {2, 3}
    # The likeliest has 0.64: a nucleus of 0.6 is it alone, one of 0.7 has the second too.
    assert set(Choice(1.0, top_p=0.6).next_token(logits, generator).tolist()) == {3}
    assert set(Choice(1.0, top_p=0.7).next_token(logits, generator).tolist()) == {2, 3}
    share = (Choice(1.0).next_token(logits, generator) == 3).double().mean()
    assert abs(float(share) - 0.6439) < 0.05
    cold = (Choice(0.25).next_token(logits, generator) == 3).double().mean()
    assert float(cold) > 0.95


def test_bad_input_is_named() -> None:
    made, (ids, mask) = model(), prompts()
    for wrong, said in (
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": 1.0, "top_k": 0}, "top_k"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p"),
        ({"top_k": 3}, "top_k: the likeliest token is taken at temperature 0"),
        ({"max_new_tokens": 60}, r"max_new_tokens: 11 tokens and 60 more are over .*max_len=64"),
        ({"start_id": 2}, "start_id: an encoder-decoder needs one"),
        ({"key_padding_mask": mask & False}, "key_padding_mask: a prompt without any token"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(ValueError, match=said):
            generate(made, ids, **{"max_new_tokens": 5, **wrong})
    with pytest.raises(ValueError, match="input_ids: expected at least one prompt, got none"):
        generate(made, ids[:0], max_new_tokens=5)
    with pytest.raises(ValueError, match="model: an encoder sees the tokens to come"):
        generate(model(architecture="encoder"), ids, max_new_tokens=2)
    with pytest.raises(UnsupportedError, match="state: an encoder sees the tokens to come"):
        model(architecture="encoder").init_state(batch_size=2)


@pytest.mark.parametrize("use_state", [True, False])
def test_the_last_token_takes_no_room(use_state: bool) -> None:
    """It is not read: 11 tokens and 54 more are 65, of which the model reads 64."""
    made, (ids, _) = model(), prompts()
    found = generate(made, ids, max_new_tokens=54, use_state=use_state)
    assert torch.equal(found.ids[:, :53], generate(made, ids, max_new_tokens=53).ids)
    logits = made(torch.cat([ids, found.ids[:, :53]], dim=1))[:, -1]
    assert torch.equal(logits.argmax(-1), found.ids[:, 53])
    with pytest.raises(ValueError, match="max_new_tokens: 11 tokens and 55 more are over"):
        generate(made, ids, max_new_tokens=55, use_state=use_state)


def test_every_module_keeps_its_mode() -> None:
    made, (ids, _) = model(dropout_p=0.5).train(), prompts()
    assert made.decoder is not None
    made.decoder.blocks[0].eval()  # as one that is frozen
    modes = [module.training for module in made.modules()]
    generate(made, ids, max_new_tokens=2)
    assert [module.training for module in made.modules()] == modes


def test_one_stop_token_needs_no_list() -> None:
    made, (ids, _) = model(), prompts()
    stop = int(generate(made, ids, max_new_tokens=4).ids[0, 3])
    stops: list[Any] = [stop, iter([stop])]
    one, several = (generate(made, ids, max_new_tokens=9, stop_ids=given) for given in stops)
    assert torch.equal(one.ids, several.ids)
    assert torch.equal(one.lengths, several.lengths)
    assert int(one.lengths[0]) <= 4
    with pytest.raises(TypeError, match="stop_ids: expected whole numbers or one, got NoneType"):
        generate(made, ids, max_new_tokens=2, stop_ids=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"stop_ids: expected a whole number, got 0.5"):
        generate(made, ids, max_new_tokens=2, stop_ids=[0.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="stop_ids: expected below vocab_size=50, got 50"):
        generate(made, ids, max_new_tokens=2, stop_ids=50)


AUTOCAST = [(name, positions) for name in dict(BACKENDS) for positions in ("learned", "rotary")]


@pytest.mark.parametrize(("name", "positions"), [*AUTOCAST, ("lstm", "learned")])
def test_autocast_decodes_with_a_state(name: str, positions: Any) -> None:
    made = model(name, dict(BACKENDS).get(name), positions=positions).float().eval()
    ids = torch.randint(0, 50, (3, 20), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        exact = made(ids)
        with torch.autocast("cpu", torch.bfloat16):
            whole = made(ids).float()
            state = made.init_state(batch_size=3, max_len=20)
            outs = [made(part, state=state) for part in ids.split([9, 1, 1, 7, 1, 1], 1)]
            found = made.generate(ids, max_new_tokens=3)
    rounding = relative_l2(whole, exact)
    assert 0 < rounding < 0.1
    assert relative_l2(torch.cat(outs, dim=1).float(), whole) < max(2 * rounding, 0.02)
    assert found.ids.shape == (3, 3)


def test_autocast_leaves_float64_as_it_is() -> None:
    made, (ids, mask) = model(), prompts()
    how: dict[str, Any] = {"max_new_tokens": 6, "key_padding_mask": mask}
    with torch.autocast("cpu", torch.bfloat16):
        found = generate(made, ids, **how)
    assert torch.equal(found.ids, generate(made, ids, **how).ids)


def test_an_encoder_decoder_answers_under_autocast() -> None:
    made, (ids, mask) = model(architecture="encoder_decoder").float(), prompts()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        memory = made.encode(ids, key_padding_mask=mask)
        state = made.init_state(batch_size=3)
        state.memory = memory
        outs = [made.decode(part, state=state).float() for part in ids.split([5, 1, 5], 1)]
        whole = made.decode(ids, memory=memory).float()
        generate(made, ids, max_new_tokens=3, start_id=2)
    assert relative_l2(torch.cat(outs, dim=1), whole) < 0.02


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("performer", {"num_features": 32, "seed": 0}),
        ("performer", {"num_features": 32}),
        ("bigbird", {"block_size": 4, "num_random_blocks": 1}),
    ],
)
def test_states_of_two_layers_do_not_change_places(name: str, options: dict[str, Any]) -> None:
    made, (ids, _) = model(name, options), prompts()
    with torch.no_grad():
        state = made.init_state(batch_size=3)
        made(ids, state=state)
        made(ids[:, :1], state=state)
        state.layers.reverse()
        for _ in range(2):
            with pytest.raises(ValueError, match=f"state: made by {name}"):
                made(ids[:, :1], state=state)
        state.layers.reverse()
        made(ids[:, :1], state=state)


def test_a_state_of_another_batch_is_refused() -> None:
    made, (ids, _) = model(), prompts()
    with torch.no_grad():
        state = made.init_state(batch_size=2)
        with pytest.raises(ValueError, match="state: made for batch 2, got 3"):
            made(ids, state=state)
        state = made.init_state(batch_size=3, max_len=20)
        made(ids, state=state)
        with pytest.raises(ValueError, match="max_len: the state was made for 20 tokens"):
            made(ids, state=state)


def test_a_state_of_another_model_is_refused() -> None:
    made, (ids, _) = model(), prompts()
    deeper, full = model(num_layers=3), model("full")
    grouped, lstm = model(num_kv_heads=2), model("lstm")
    both = model(architecture="encoder_decoder")
    with torch.no_grad():
        for asked, given, error, said in (
            (made, deeper, ValueError, "state: made for 3 layers, this model has 2"),
            (made, full, ValueError, r"state: made by full\(.*\), this is sdpa\("),
            (made, lstm, ValueError, r"state: made by lstm\(.*\), this is sdpa\("),
            (lstm, made, ValueError, r"state: made by sdpa\(.*\), this is lstm\("),
            (made, grouped, ValueError, "state: made for num_kv_heads 2, q and k have 4"),
            (made, model().float(), ValueError, "state: made for dtype torch.float32"),
        ):
            state = given.init_state(batch_size=3)
            with pytest.raises(error, match=said):
                asked(ids, state=state)
            assert not state.lengths.any()  # nothing was taken in
            assert not any(layer.longest for layer in state.layers)
        with pytest.raises(TypeError, match="state: expected one by init_state, got list"):
            made(ids, state=made.init_state(batch_size=3).layers)
        with pytest.raises(ValueError, match="state: an encoder-decoder decodes by encode and"):
            both(ids, ids, state=both.init_state(batch_size=3))


def test_bad_ids_of_a_decoder_are_named_as_its_own() -> None:
    both, (ids, _) = model(architecture="encoder_decoder"), prompts()
    for given, error, said in (
        (ids + 50, ValueError, "^decoder_input_ids: expected ids from 0 to 49"),
        (ids[0], ValueError, r"^decoder_input_ids: expected \[B, N\]"),
        (ids.float(), TypeError, "^decoder_input_ids: expected whole numbers"),
        (ids.repeat(1, 6), ValueError, "^decoder_input_ids: 66 tokens are more than"),
    ):
        with pytest.raises(error, match=said):
            both(ids, given)
    with pytest.raises(ValueError, match=r"^decoder_key_padding_mask: expected shape"):
        both(ids, ids, decoder_key_padding_mask=ids[:, 1:] > 0)
    with torch.no_grad():
        memory, state = both.encode(ids), both.init_state(batch_size=3)
        for _ in range(5):
            both.decode(ids, memory=memory, state=state)
        with pytest.raises(ValueError, match=r"^decoder_input_ids: a sequence would have 66 tok"):
            both.decode(ids, memory=memory, state=state)


@pytest.mark.parametrize("attention", dict(BACKENDS))
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_logits_in_chunks_are_those_at_once(attention: str, positions: Any) -> None:
    options = dict(BACKENDS)[attention]
    made = model(attention, options, positions=positions, num_kv_heads=2).eval()
    ids = torch.randint(0, 50, (3, 40), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(3, 40, dtype=torch.bool)
    mask[1, 3:9], mask[1, 30:], mask[2, 12:] = False, False, False
    with torch.no_grad():
        state = made.init_state(batch_size=3, max_len=40)
        sizes = [7, 1, 1, 20, 11]
        outs = [
            made(part, key_padding_mask=some, state=state)
            for part, some in zip(ids.split(sizes, 1), mask.split(sizes, 1), strict=True)
        ]
        out = torch.cat(outs, dim=1)
        for row in range(3):  # what is no token is nowhere, also in a window's distances
            whole = made(ids[row : row + 1, mask[row]])
            torch.testing.assert_close(out[row : row + 1, mask[row]], whole)
    assert state.lengths.tolist() == mask.sum(dim=1).tolist()


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_an_lstm_generates_the_same_with_and_without_its_state(positions: Any) -> None:
    made = model("lstm", positions=positions, tied=False)
    ids, mask = prompts()
    how: dict[str, Any] = {"max_new_tokens": 20, "key_padding_mask": mask}
    with_state, without = (generate(made, ids, use_state=use, **how) for use in (True, False))
    assert torch.equal(with_state.ids, without.ids)
    assert len(with_state.ids.unique()) > 3
    for row in range(3):
        alone = generate(made, ids[row : row + 1, mask[row]], max_new_tokens=20)
        assert torch.equal(alone.ids[0], with_state.ids[row])

"""A model with another attention: which weights are kept, which are new, which are lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attention.checks import check_int
from models.layers.multihead import copy_call_projections
from models.layers.pattern import Names, layer_names
from models.layers.token_mixer import mixer_class

EXTRA = "_extra_state"
"""How torch ends the name of what a module keeps in a checkpoint beside tensors."""


def swapped(model: Any, attention: Names, max_len: int | None, options: Mapping[str, Any]) -> Any:
    """Return a model with another self-attention; see `TransformerModel.with_attention`."""
    config, given = model.config, model.chosen
    if max_len is not None:
        config = config.scaled(max_len=check_int("max_len", max_len, minimum=1))
    chosen = {**given, "attention": attention, "attention_options": options}
    if config.architecture == "encoder_decoder":
        decoder = given["decoder_attention"] or given["attention"]
        chosen["decoder_attention"] = decoder
        if given["decoder_attention_options"] is None:
            same = decoder == given["attention"]
            chosen["decoder_attention_options"] = (
                given["attention_options"] if same else None
            ) or {}
    made = type(model)(config, **chosen).to(model.tokens.weight.device, model.dtype)
    for stack in ("encoder", "decoder"):
        if getattr(model, stack) is not None:
            getattr(made, stack).checkpointing = getattr(model, stack).checkpointing
    stack = "encoder" if made.encoder is not None else "decoder"
    notes = carry_over(
        model, made, attention if isinstance(attention, str) else "+".join(attention),
        seeded="" if options.get("seed") is None else f"{stack}.",
        position_offset=config.position_offset,
    )  # fmt: skip
    names = dict.fromkeys(layer_names("attention", attention, config.num_layers)[0])
    if config.attention_dropout_p:
        notes += [
            f"attention_dropout_p: {config.attention_dropout_p} is not kept, {name} "
            "forms no weights to drop"
            for name in names
            if not mixer_class(name).supports.dropout
        ]
    made.swap_notes = tuple(notes)
    return made.train(model.training)


def carry_over(
    old: nn.Module, new: nn.Module, attention: str, *, seeded: str, position_offset: int
) -> list[str]:
    """Copy what fits of a model's weights and draws into another; say what does not.

    Learned positions of another length are repeated. Projections that only some backends have
    start as copies of the usual ones, where `old` has none.

    Args:
        old: gives its weights.
        new: gets them.
        attention: of `new`, for the notes.
        seeded: how the names of layers begin whose draws are those of a seed that was given, so
            that they are not replaced; "" = of none.
        position_offset: rows of the learned positions that come before position 0.

    Returns:
        a note on each weight that was not kept, or is new.
    """
    given, notes = dict(old.named_parameters()), list[str]()
    call_projections = [n for n, _ in new.named_parameters() if ".call_projections." in n]
    with torch.no_grad():
        for name, weight in new.named_parameters():
            if name in call_projections:
                continue
            source = given.pop(name, None)
            if source is None:
                notes.append(f"{name}: new, drawn at random")
            elif source.shape == weight.shape:
                weight.copy_(source)
            elif name.endswith("positions.weight"):
                notes.append(_repeat_positions(name, weight, source, position_offset))
            else:
                notes.append(
                    f"{name}: drawn at random; {tuple(source.shape)} does not fit "
                    f"{tuple(weight.shape)}"
                )
        copy_call_projections(new)
        for name, weight in new.named_parameters():
            if name in call_projections and name in given:
                weight.copy_(given.pop(name))
                call_projections.remove(name)
    notes += [f"{name}: not kept, {attention} has none" for name in given]
    notes += _keep_draws(old, new, attention, seeded)
    if call_projections:
        notes.append("call_projections: new, copies of the usual projections")
    return notes


def _keep_draws(old: nn.Module, new: nn.Module, attention: str, seeded: str) -> list[str]:
    """Copy the buffers that checkpoints hold, as far as they fit; return what is new or lost."""
    given, fitting, notes = _drawn_by_layer(old), dict[str, Any](), list[str]()
    for layer, drawn in _drawn_by_layer(new).items():
        source = given.pop(layer, {})
        by_seed = bool(seeded) and layer.startswith(seeded)
        same_kind = bool(source) and type(old.get_submodule(layer)) is type(
            new.get_submodule(layer)
        )
        if not by_seed and same_kind and _all_fit(drawn, source):
            fitting |= source
            continue
        how = "drawn by the seed that was given" if by_seed else "drawn at random"
        notes += [f"{name}: new, {how}" for name in drawn if not name.endswith(EXTRA)]
    for lost in given.values():
        notes += [
            f"{name}: not kept, {attention} has none" for name in lost if not name.endswith(EXTRA)
        ]
    new.load_state_dict(fitting, strict=False)
    return notes


def _drawn_by_layer(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what a checkpoint holds beside parameters, by layer: buffers, and extra state."""
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    drawn: dict[str, dict[str, Any]] = {}
    for name, value in model.state_dict().items():
        if name not in trained:
            drawn.setdefault(name.rpartition(".")[0], {})[name] = value
    return drawn


def _all_fit(buffers: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether a layer has the same buffers as another, of the same shapes."""
    return buffers.keys() == given.keys() and all(
        getattr(x, "shape", None) == getattr(given[name], "shape", None)
        for name, x in buffers.items()
    )


def _repeat_positions(name: str, weight: Tensor, given: Tensor, offset: int) -> str:
    """Fill learned positions of another length; return what was done."""
    weight[:offset] = given[:offset]
    rows, source = weight[offset:], given[offset:]
    repeats = -(-len(rows) // len(source))
    rows.copy_(source.repeat(repeats, 1)[: len(rows)])
    if len(rows) <= len(source):
        return f"{name}: the first {len(rows)} of {len(source)} positions are kept"
    return f"{name}: {len(source)} positions, repeated to {len(rows)}"

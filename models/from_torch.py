"""Take weights in from torch's own layers: nn.MultiheadAttention and nn.TransformerEncoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention.base import Attention
from attention.checks import check_int
from models.layers.block import TransformerBlock
from models.layers.multihead import MultiheadAttention, copy_call_projections
from models.layers.token_mixer import mixer_class
from models.stack import TransformerStack

PARTS = {
    "norm1": "attention_norm",
    "linear1": "feed_forward.up_proj",
    "linear2": "feed_forward.down_proj",
    "norm2": "feed_forward_norm",
}
"""Torch's names of a layer's parts beside its attention, and ours."""


def from_torch(
    module: nn.Module,
    *,
    attention: str = "sdpa",
    attention_options: Mapping[str, Any] | None = None,
    max_len: int | None = None,
) -> MultiheadAttention | TransformerBlock | TransformerStack:
    """Build our layer with the shape and the weights of one of torch's.

    It is called as ours are: ``[B, N, d_model]``, whatever `batch_first` is, and a
    `key_padding_mask` in which **True = takes part**, the opposite of torch's.

    Args:
        module: an ``nn.MultiheadAttention``, ``nn.TransformerEncoderLayer`` or
            ``nn.TransformerEncoder``.
        attention: a registered backend's name; another than exact attention computes something
            else.
        attention_options: its constructor arguments.
        max_len: the longest length that will be asked for, of a backend that is built for one.

    Returns:
        a `MultiheadAttention`, `TransformerBlock` or `TransformerStack`, in the mode, dtype and
        device of `module`. Its outputs are those of `module`. Dropout on the weights is kept where
        the backend forms weights.

    Raises:
        TypeError: if it is none of these; a subclass may compute something else.
        ValueError: if it has what our layers do not, or `max_len` is missing.
    """
    if type(module) not in BUILDERS:
        accepted_classes = ", ".join(f"nn.{kind.__name__}" for kind in BUILDERS)
        raise TypeError(f"module: expected one of {accepted_classes}, got {type(module).__name__}")
    options = dict(attention_options or {})
    if max_len is not None:
        check_int("max_len", max_len, minimum=1)
    accepted = mixer_class(attention).options()
    if "seq_len" in accepted and "seq_len" not in options:
        if max_len is None:
            raise ValueError(f"max_len: {attention} is built for a longest length; got None")
        options["seq_len"] = max_len
    made, weights = BUILDERS[type(module)](module, attention, options)
    like = next(module.parameters())
    made = made.to(like.device, like.dtype)
    missing, unexpected = made.load_state_dict(weights, strict=False)
    assert not unexpected
    # What torch has no weights for is the backend's own, and the last norm is torch's already.
    absent = [f"{at}." for at, part in made.named_modules() if isinstance(part, Attention)]
    absent += [f"{at}." for at, _ in made.named_modules() if at.endswith("call_projections")]
    assert all(name.startswith((*absent, "final_norm.")) for name in missing), missing
    copy_call_projections(made)
    made.train(module.training)
    return made  # type: ignore[no-any-return]


Weights = dict[str, Tensor]


def _multihead(
    module: nn.MultiheadAttention, attention: str, options: dict[str, Any]
) -> tuple[MultiheadAttention, Weights]:
    made = MultiheadAttention(
        **_attention_shape(module, attention), attention=attention, attention_options=options
    )
    return made, _attention_weights(module)


def _block(
    module: nn.TransformerEncoderLayer, attention: str, options: dict[str, Any]
) -> tuple[TransformerBlock, Weights]:
    made = TransformerBlock(
        **_block_shape(module, attention), attention=attention, attention_options=options
    )
    return made, _block_weights(module)


def _stack(
    module: nn.TransformerEncoder, attention: str, options: dict[str, Any]
) -> tuple[TransformerStack, Weights]:
    shapes, weights = [], Weights()
    for index, layer in enumerate(module.layers):
        if type(layer) is not nn.TransformerEncoderLayer:
            raise TypeError(
                f"module: expected layers of nn.TransformerEncoderLayer, got "
                f"{type(layer).__name__} as layer {index}"
            )
        shapes.append(_block_shape(layer, attention))
        weights |= {f"blocks.{index}.{n}": x for n, x in _block_weights(layer).items()}
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"module: expected all layers as the first, {shapes[0]}; layer {index} has {shape}"
            )
    made = TransformerStack(
        num_layers=len(shapes),
        max_len=options.get("seq_len", 1),  # of use to such a backend alone
        attention=attention,
        attention_options=options,
        **shapes[0],
    )
    made.final_norm = nn.Identity() if module.norm is None else copy.deepcopy(module.norm)
    return made, weights


BUILDERS: dict[type[nn.Module], Callable[..., tuple[Any, Weights]]] = {
    nn.MultiheadAttention: _multihead,
    nn.TransformerEncoderLayer: _block,
    nn.TransformerEncoder: _stack,
}
"""By torch's class: how ours is built, and its parameters under our names."""


def _attention_shape(module: nn.MultiheadAttention, attention: str) -> dict[str, Any]:
    """Return the arguments of a `MultiheadAttention`."""
    if module.in_proj_weight is None:
        raise ValueError(
            f"module.kdim, module.vdim: expected embed_dim={module.embed_dim}, "
            f"got {module.kdim} and {module.vdim}"
        )
    if module.bias_k is not None or module.add_zero_attn:
        raise ValueError("module: add_bias_kv and add_zero_attn add keys of their own; got one")
    return {
        "d_model": module.embed_dim,
        "num_heads": module.num_heads,
        "dropout_p": module.dropout if mixer_class(attention).supports.dropout else 0.0,
        "bias": module.in_proj_bias is not None,
    }


def _attention_weights(module: nn.MultiheadAttention) -> Weights:
    weights = {f"out_proj.{n}": x.detach() for n, x in module.out_proj.named_parameters()}
    for kind, joined in (("weight", module.in_proj_weight), ("bias", module.in_proj_bias)):
        if joined is not None:
            parts = joined.detach().chunk(3)
            weights |= {f"qkv.{p}_proj.{kind}": x for p, x in zip("qkv", parts, strict=True)}
    return weights


def _block_shape(layer: nn.TransformerEncoderLayer, attention: str) -> dict[str, Any]:
    """Return the arguments of a `TransformerBlock`."""
    shape = _attention_shape(layer.self_attn, attention)
    dropout_p = shape.pop("dropout_p")
    first, second = layer.norm1, layer.norm2
    if not (type(first) is type(second) is nn.LayerNorm and first.eps == second.eps):
        raise ValueError(f"module: expected two equal nn.LayerNorm, got {first} and {second}")
    if layer.dropout1.p != layer.dropout2.p:
        raise ValueError(
            f"module.dropout2: expected that of dropout1, {layer.dropout1.p}, "
            f"got {layer.dropout2.p}"
        )
    return {
        **shape,
        "d_ff": layer.linear1.out_features,
        "norm": "pre" if layer.norm_first else "post",
        "norm_eps": first.eps,
        "activation": _activation(layer.activation),
        "dropout_p": layer.dropout1.p,
        "attention_dropout_p": dropout_p,
        "activation_dropout_p": layer.dropout.p,
    }


def _block_weights(layer: nn.TransformerEncoderLayer) -> Weights:
    weights = {f"attention.{n}": x for n, x in _attention_weights(layer.self_attn).items()}
    for theirs, ours in PARTS.items():
        part = getattr(layer, theirs)
        weights |= {f"{ours}.{n}": x.detach() for n, x in part.named_parameters()}
    return weights


def _activation(given: Any) -> str:
    """Return our name of an activation."""
    if given is F.relu or given is torch.relu or isinstance(given, nn.ReLU):
        return "relu"
    if isinstance(given, nn.GELU):
        given = partial(F.gelu, approximate=given.approximate)
    if given is F.gelu:
        given = partial(F.gelu)
    if isinstance(given, partial) and given.func is F.gelu and not given.args:
        return "gelu_tanh" if given.keywords.get("approximate") == "tanh" else "gelu"
    raise ValueError(f"module.activation: expected relu or gelu, got {given}")

"""Take weights in from transformers' BERT, GPT-2 and BART.

The model is read by its configuration and its named parameters: transformers need not be
importable here, and nothing is downloaded. What is what there stands in the tables below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.layers.multihead import copy_call_projections
from models.transformer import TransformerModel

ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
}  # fmt: skip
"""Their names of activations, and ours."""

Weights = Mapping[str, Tensor]

_SIDES = ("encoder", "decoder")


@dataclass(frozen=True)
class Family:
    """How models of one class are read.

    Attributes:
        shape: values of our configuration, and what theirs calls them.
        fixed: values of ours that theirs has no name for.
        expected: values of theirs beside which our block computes something else.
        names: our modules, and what theirs calls them; ``*`` is the number of a block.
        check: of their configuration, what no table says.
        adapt: gives their weights the layout of ours.
    """

    shape: Mapping[str, str]
    fixed: Mapping[str, Any]
    expected: Mapping[str, Any]
    names: Mapping[str, str]
    check: Callable[[Any], None] = lambda _config: None
    adapt: Callable[[Weights], Weights] = lambda theirs: theirs

    def config(self, given: Any) -> ModelConfig:
        """Return our configuration of a model with theirs."""
        for name, value in self.expected.items():
            actual = getattr(given, name, value)  # an absent one is fine
            if actual != value:
                raise ValueError(f"hf_model.config.{name}: expected {value!r}, got {actual!r}")
        self.check(given)
        shape = {ours: getattr(given, theirs) for ours, theirs in self.shape.items()}
        if "d_ff" in shape and shape["d_ff"] is None:
            shape["d_ff"] = 4 * shape["d_model"]
        if "activation" in shape:
            shape["activation"] = _activation(self.shape["activation"], shape["activation"])
        return ModelConfig(**self.fixed, **shape)

    def their_name(self, ours: str) -> str:
        """Return their name of one of our parameters.

        Raises:
            ValueError: if there is none.
        """
        module, _, kind = ours.rpartition(".")
        block = re.search(r"\.blocks\.(\d+)\.", module)
        pattern = module if block is None else module.replace(block[0], ".blocks.*.", 1)
        if pattern not in self.names:
            raise ValueError(f"hf_model: it has no weight for {ours}")
        return f"{self.names[pattern].replace('*', block[1] if block else '')}.{kind}"


def from_huggingface(
    hf_model: nn.Module, *, attention: str = "sdpa", **options: Any
) -> TransformerModel:
    """Build a model with the shape and the weights of one of transformers'.

    Args:
        hf_model: a ``BertForMaskedLM``, ``GPT2LMHeadModel`` or ``BartForConditionalGeneration``.
        attention: see `TransformerModel`; another than exact attention computes something else.
        **options: further arguments of `TransformerModel`.

    Returns:
        in eval mode, on the CPU, in the parameters' dtype; its logits are those of `hf_model`.

    Raises:
        TypeError: if it is none of these.
        ValueError: if its configuration asks for what our block does not have, or a weight does
            not fit.
    """
    kind = type(hf_model).__name__
    if kind not in FAMILIES:
        raise TypeError(f"hf_model: expected one of {', '.join(FAMILIES)}, got {kind}")
    family = FAMILIES[kind]
    model = TransformerModel(family.config(hf_model.config), attention=attention, **options)
    _load(model, family, family.adapt(dict(hf_model.named_parameters())))
    bias = dict(hf_model.named_buffers()).get("final_logits_bias")
    if bias is not None and bool(bias.any()):
        raise ValueError("hf_model: its final_logits_bias is not zero; our logits have none")
    return model.eval()


def _load(model: TransformerModel, family: Family, theirs: Weights) -> None:
    """Copy weights by their names; every one must be there, fit, and have a place."""
    model.to(next(iter(theirs.values())).dtype)
    left = set(theirs)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".call_projections." in name or ".attention.attention." in name:
                continue  # the attention's own, which the other model does not have
            their_name = family.their_name(name)
            if their_name not in theirs:
                raise ValueError(f"hf_model: it has no parameter {their_name!r}")
            given = theirs[their_name]
            if weight.shape != given.shape:
                raise ValueError(
                    f"hf_model: {name} is {tuple(given.shape)}, expected {tuple(weight.shape)}"
                )
            weight.copy_(given)
            left.discard(their_name)
    if left:
        raise ValueError(f"hf_model: our model has no place for {', '.join(sorted(left)[:5])}")
    copy_call_projections(model)


def _activation(name: str, given: str) -> str:
    if given not in ACTIVATIONS:
        raise ValueError(
            f"hf_model.config.{name}: expected one of {', '.join(ACTIVATIONS)}, got {given!r}"
        )
    return ACTIVATIONS[given]


def _as_linear(theirs: Weights) -> Weights:
    """Return GPT-2's weights, whose matrices are transposed and q, k and v in one, as others'."""
    weights: dict[str, Tensor] = {}
    for name, x in theirs.items():
        layer, _, kind = name.rpartition(".")
        is_conv = layer.rpartition(".")[2].startswith("c_")
        turned = x.T if is_conv and kind == "weight" else x
        if layer.endswith("c_attn"):
            parts = zip("qkv", turned.chunk(3), strict=True)
            weights |= {f"{layer}.{part}.{kind}": weight for part, weight in parts}
        else:
            weights[name] = turned
    return weights


def _with_decoder_bias(theirs: Weights) -> Weights:
    """Return BERT's weights with the logits' bias under one name: tied weights have another."""
    weights = dict(theirs)
    shared = weights.pop("cls.predictions.bias", None)
    if shared is not None:
        weights.setdefault("cls.predictions.decoder.bias", shared)
    return weights


def _check_embedding_dropout(given: Any) -> None:
    """Check that GPT-2 drops as much behind the embeddings as elsewhere."""
    if given.embd_pdrop != given.resid_pdrop:
        raise ValueError(
            f"hf_model.config.embd_pdrop: expected {given.resid_pdrop!r}, got {given.embd_pdrop!r}"
        )


def _check_sides(given: Any) -> None:
    """Check that BART's encoder and decoder are of one shape."""
    for what in ("layers", "attention_heads", "ffn_dim"):
        sides = [getattr(given, f"{side}_{what}") for side in _SIDES]
        if sides[0] != sides[1]:
            raise ValueError(
                f"hf_model.config.decoder_{what}: expected that of the encoder, {sides[0]}, "
                f"got {sides[1]}"
            )


def _within(ours: str, theirs: str, names: Mapping[str, str]) -> dict[str, str]:
    """Return names with those of the module that they are in before them."""
    return {f"{ours}.{name}": f"{theirs}.{their_name}" for name, their_name in names.items()}


_BERT = Family(
    shape={
        "vocab_size": "vocab_size", "d_model": "hidden_size", "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads", "d_ff": "intermediate_size",
        "max_len": "max_position_embeddings", "num_token_types": "type_vocab_size",
        "norm_eps": "layer_norm_eps", "tied": "tie_word_embeddings",
        "dropout_p": "hidden_dropout_prob", "attention_dropout_p": "attention_probs_dropout_prob",
    },
    fixed={
        "architecture": "encoder", "norm": "post", "embedding_norm": True, "head": "transform",
    },
    expected={
        "position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False,
        "hidden_act": "gelu",
    },
    names={
        "tokens": "bert.embeddings.word_embeddings",
        "encoder_embeddings.positions": "bert.embeddings.position_embeddings",
        "encoder_embeddings.token_types": "bert.embeddings.token_type_embeddings",
        "encoder_embeddings.norm": "bert.embeddings.LayerNorm",
        "logits.transform.0": "cls.predictions.transform.dense",
        "logits.transform.2": "cls.predictions.transform.LayerNorm",
        "logits.proj": "cls.predictions.decoder",
        **_within("encoder.blocks.*", "bert.encoder.layer.*", {
            "attention.qkv.q_proj": "attention.self.query",
            "attention.qkv.k_proj": "attention.self.key",
            "attention.qkv.v_proj": "attention.self.value",
            "attention.out_proj": "attention.output.dense",
            "attention_norm": "attention.output.LayerNorm",
            "feed_forward.up_proj": "intermediate.dense",
            "feed_forward.down_proj": "output.dense",
            "feed_forward_norm": "output.LayerNorm",
        }),
    },
    adapt=_with_decoder_bias,
)  # fmt: skip

_GPT2 = Family(
    shape={
        "vocab_size": "vocab_size", "d_model": "n_embd", "num_layers": "n_layer",
        "num_heads": "n_head", "d_ff": "n_inner", "max_len": "n_positions",
        "norm_eps": "layer_norm_epsilon", "activation": "activation_function",
        "tied": "tie_word_embeddings", "dropout_p": "resid_pdrop",
        "attention_dropout_p": "attn_pdrop",
    },
    fixed={"architecture": "decoder", "norm": "pre"},
    expected={
        "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    names={
        "tokens": "transformer.wte",
        "decoder_embeddings.positions": "transformer.wpe",
        "decoder.final_norm": "transformer.ln_f",
        "logits.proj": "lm_head",
        **_within("decoder.blocks.*", "transformer.h.*", {
            "attention_norm": "ln_1",
            **{f"attention.qkv.{x}_proj": f"attn.c_attn.{x}" for x in "qkv"},
            "attention.out_proj": "attn.c_proj",
            "feed_forward_norm": "ln_2",
            "feed_forward.up_proj": "mlp.c_fc",
            "feed_forward.down_proj": "mlp.c_proj",
        }),
    },
    check=_check_embedding_dropout,
    adapt=_as_linear,
)  # fmt: skip

_BART_BLOCK = {
    **{f"attention.qkv.{x}_proj": f"self_attn.{x}_proj" for x in "qkv"},
    "attention.out_proj": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    **{f"cross_attention.qkv.{x}_proj": f"encoder_attn.{x}_proj" for x in "qkv"},
    "cross_attention.out_proj": "encoder_attn.out_proj",
    "cross_attention_norm": "encoder_attn_layer_norm",
    "feed_forward.up_proj": "fc1",
    "feed_forward.down_proj": "fc2",
    "feed_forward_norm": "final_layer_norm",
}

_BART = Family(
    shape={
        "vocab_size": "vocab_size", "d_model": "d_model", "num_layers": "encoder_layers",
        "num_heads": "encoder_attention_heads", "d_ff": "encoder_ffn_dim",
        "max_len": "max_position_embeddings", "activation": "activation_function",
        "dropout_p": "dropout", "attention_dropout_p": "attention_dropout",
        "activation_dropout_p": "activation_dropout",
    },
    fixed={
        "architecture": "encoder_decoder", "position_offset": 2, "norm": "post",
        "embedding_norm": True,
    },
    expected={
        "scale_embedding": False, "tie_word_embeddings": True, "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
    },
    names={
        "tokens": "model.shared",
        **{f"{x}_embeddings.positions": f"model.{x}.embed_positions" for x in _SIDES},
        **{f"{x}_embeddings.norm": f"model.{x}.layernorm_embedding" for x in _SIDES},
        **_within("encoder.blocks.*", "model.encoder.layers.*", _BART_BLOCK),
        **_within("decoder.blocks.*", "model.decoder.layers.*", _BART_BLOCK),
    },
    check=_check_sides,
)  # fmt: skip

FAMILIES = {
    "BertForMaskedLM": _BERT, "GPT2LMHeadModel": _GPT2, "BartForConditionalGeneration": _BART,
}  # fmt: skip
"""By the class of a model."""

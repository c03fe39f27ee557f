"""Take weights in from transformers' BERT, GPT-2 and BART.

The model is read by its configuration and its named parameters: transformers need not be
importable here, and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.transformer import TransformerModel

ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
}  # fmt: skip
"""Their names of activations, and ours."""

Named = Iterator[tuple[str, Tensor]]


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
    if kind not in READERS:
        raise TypeError(f"hf_model: expected one of {', '.join(READERS)}, got {kind}")
    shape, names = READERS[kind]
    given: Any = hf_model.config
    model = TransformerModel(shape(given), attention=attention, **options)
    try:
        weights = dict(names(dict(hf_model.named_parameters()), model.config))
    except KeyError as error:
        raise ValueError(f"hf_model: it has no parameter {error}") from None
    _load(model, weights)
    _check_logits_bias(hf_model)
    return model.eval()


def _load(model: TransformerModel, weights: dict[str, Tensor]) -> None:
    """Copy weights by our names; every one must be there, and fit."""
    own = dict(model.named_parameters())
    needed = {name for name in own if not _is_new(name)}
    if missing := sorted(needed - weights.keys()):
        raise ValueError(f"hf_model: it has no weight for {', '.join(missing[:5])}")
    if unknown := sorted(weights.keys() - needed):
        raise ValueError(f"hf_model: our model has no place for {', '.join(unknown[:5])}")
    dtype = next(iter(weights.values())).dtype
    model.to(dtype)
    with torch.no_grad():
        for name in sorted(needed):
            if own[name].shape != weights[name].shape:
                raise ValueError(
                    f"hf_model: {name} is {tuple(weights[name].shape)}, "
                    f"expected {tuple(own[name].shape)}"
                )
            own[name].copy_(weights[name])
    model.copy_call_projections()


def _is_new(name: str) -> bool:
    """Whether a parameter is the attention's own, which the other model does not have."""
    return ".call_projections." in name or ".attention.attention." in name


def _check_logits_bias(hf_model: nn.Module) -> None:
    bias = dict(hf_model.named_buffers()).get("final_logits_bias")
    if bias is not None and bool(bias.any()):
        raise ValueError("hf_model: its final_logits_bias is not zero; our logits have none")


def _refuse(given: Any, **expected: Any) -> None:
    """Refuse a configuration whose values are not the expected ones; absent ones are fine."""
    for name, value in expected.items():
        found = getattr(given, name, value)
        if found != value:
            raise ValueError(f"hf_model.config.{name}: expected {value!r}, got {found!r}")


def _activation(given: Any, name: str) -> str:
    found = getattr(given, name)
    if found not in ACTIVATIONS:
        raise ValueError(
            f"hf_model.config.{name}: expected one of {', '.join(ACTIVATIONS)}, got {found!r}"
        )
    return ACTIVATIONS[found]


def _both(theirs: dict[str, Tensor], their: str, our: str) -> Named:
    """Yield weight and bias of a layer."""
    yield f"{our}.weight", theirs[f"{their}.weight"]
    yield f"{our}.bias", theirs[f"{their}.bias"]


def _layers(
    theirs: dict[str, Tensor], parts: dict[str, str], their: str, stack: str, config: ModelConfig
) -> Named:
    """Yield weights and biases of the parts of every block: their names of parts, and ours."""
    for layer in range(config.num_layers):
        for name, part in parts.items():
            yield from _both(theirs, f"{their}.{layer}.{name}", f"{stack}.blocks.{layer}.{part}")


# -- BERT ----------------------------------------------------------------------------------------


def _bert_shape(given: Any) -> ModelConfig:
    _refuse(
        given, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False,
        hidden_act="gelu",
    )  # fmt: skip
    return ModelConfig(
        "encoder",
        vocab_size=given.vocab_size,
        d_model=given.hidden_size,
        num_layers=given.num_hidden_layers,
        num_heads=given.num_attention_heads,
        d_ff=given.intermediate_size,
        max_len=given.max_position_embeddings,
        num_token_types=given.type_vocab_size,
        norm="post",
        norm_eps=given.layer_norm_eps,
        embedding_norm=True,
        head="transform",
        tied=given.tie_word_embeddings,
        dropout_p=given.hidden_dropout_prob,
        attention_dropout_p=given.attention_probs_dropout_prob,
    )


BERT_LAYER = {
    "attention.self.query": "attention.qkv.q_proj",
    "attention.self.key": "attention.qkv.k_proj",
    "attention.self.value": "attention.qkv.v_proj",
    "attention.output.dense": "attention.out_proj",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.up_proj",
    "output.dense": "feed_forward.down_proj",
    "output.LayerNorm": "feed_forward_norm",
}


def _bert_names(theirs: dict[str, Tensor], config: ModelConfig) -> Named:
    yield "tokens.weight", theirs["bert.embeddings.word_embeddings.weight"]
    yield (
        "encoder_embeddings.positions.weight",
        theirs["bert.embeddings.position_embeddings.weight"],
    )
    yield (
        "encoder_embeddings.token_types.weight",
        theirs["bert.embeddings.token_type_embeddings.weight"],
    )
    yield from _both(theirs, "bert.embeddings.LayerNorm", "encoder_embeddings.norm")
    yield from _layers(theirs, BERT_LAYER, "bert.encoder.layer", "encoder", config)
    yield from _both(theirs, "cls.predictions.transform.dense", "logits.transform.0")
    yield from _both(theirs, "cls.predictions.transform.LayerNorm", "logits.transform.2")
    bias = "cls.predictions.bias" if config.tied else "cls.predictions.decoder.bias"
    yield "logits.proj.bias", theirs[bias]
    if not config.tied:
        yield "logits.proj.weight", theirs["cls.predictions.decoder.weight"]


# -- GPT-2 ---------------------------------------------------------------------------------------


def _gpt2_shape(given: Any) -> ModelConfig:
    _refuse(
        given, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False, embd_pdrop=given.resid_pdrop,
    )  # fmt: skip
    return ModelConfig(
        "decoder",
        vocab_size=given.vocab_size,
        d_model=given.n_embd,
        num_layers=given.n_layer,
        num_heads=given.n_head,
        d_ff=given.n_inner or 4 * given.n_embd,
        max_len=given.n_positions,
        norm="pre",
        norm_eps=given.layer_norm_epsilon,
        activation=_activation(given, "activation_function"),  # type: ignore[arg-type]
        tied=given.tie_word_embeddings,
        dropout_p=given.resid_pdrop,
        attention_dropout_p=given.attn_pdrop,
    )


GPT2_LAYER = {
    "ln_1": "attention_norm",
    **{f"attn.c_attn.{x}": f"attention.qkv.{x}_proj" for x in "qkv"},
    "attn.c_proj": "attention.out_proj",
    "ln_2": "feed_forward_norm",
    "mlp.c_fc": "feed_forward.up_proj",
    "mlp.c_proj": "feed_forward.down_proj",
}


def _gpt2_names(theirs: dict[str, Tensor], config: ModelConfig) -> Named:
    yield "tokens.weight", theirs["transformer.wte.weight"]
    yield "decoder_embeddings.positions.weight", theirs["transformer.wpe.weight"]
    yield from _layers(dict(_as_linear(theirs)), GPT2_LAYER, "transformer.h", "decoder", config)
    yield from _both(theirs, "transformer.ln_f", "decoder.final_norm")
    if not config.tied:
        yield "logits.proj.weight", theirs["lm_head.weight"]


def _as_linear(theirs: dict[str, Tensor]) -> Named:
    """Yield GPT-2's layers, whose matrices are transposed and q, k and v in one, as others are."""
    for name, x in theirs.items():
        layer, _, kind = name.rpartition(".")
        of_theirs = layer.rpartition(".")[2].startswith("c_")
        turned = x.T if of_theirs and kind == "weight" else x
        if layer.endswith("c_attn"):
            for part, own in zip("qkv", turned.chunk(3), strict=True):
                yield f"{layer}.{part}.{kind}", own
        else:
            yield name, turned


# -- BART ----------------------------------------------------------------------------------------


def _bart_shape(given: Any) -> ModelConfig:
    _refuse(
        given, scale_embedding=False, tie_word_embeddings=True, encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
    )  # fmt: skip
    for what in ("layers", "attention_heads", "ffn_dim"):
        sides = [getattr(given, f"{side}_{what}") for side in ("encoder", "decoder")]
        if sides[0] != sides[1]:
            raise ValueError(
                f"hf_model.config.decoder_{what}: expected that of the encoder, {sides[0]}, "
                f"got {sides[1]}"
            )
    return ModelConfig(
        "encoder_decoder",
        vocab_size=given.vocab_size,
        d_model=given.d_model,
        num_layers=given.encoder_layers,
        num_heads=given.encoder_attention_heads,
        d_ff=given.encoder_ffn_dim,
        max_len=given.max_position_embeddings,
        position_offset=2,
        norm="post",
        embedding_norm=True,
        activation=_activation(given, "activation_function"),  # type: ignore[arg-type]
        dropout_p=given.dropout,
        attention_dropout_p=given.attention_dropout,
        activation_dropout_p=given.activation_dropout,
    )


BART_LAYER = {
    **{f"self_attn.{x}_proj": f"attention.qkv.{x}_proj" for x in "qkv"},
    "self_attn.out_proj": "attention.out_proj",
    "self_attn_layer_norm": "attention_norm",
    "fc1": "feed_forward.up_proj",
    "fc2": "feed_forward.down_proj",
    "final_layer_norm": "feed_forward_norm",
}
BART_CROSS = {
    **{f"encoder_attn.{x}_proj": f"cross_attention.qkv.{x}_proj" for x in "qkv"},
    "encoder_attn.out_proj": "cross_attention.out_proj",
    "encoder_attn_layer_norm": "cross_attention_norm",
}


def _bart_names(theirs: dict[str, Tensor], config: ModelConfig) -> Named:
    yield "tokens.weight", theirs["model.shared.weight"]
    for side in ("encoder", "decoder"):
        their, ours = f"model.{side}", f"{side}_embeddings"
        yield f"{ours}.positions.weight", theirs[f"{their}.embed_positions.weight"]
        yield from _both(theirs, f"{their}.layernorm_embedding", f"{ours}.norm")
        parts = BART_LAYER | (BART_CROSS if side == "decoder" else {})
        yield from _layers(theirs, parts, f"{their}.layers", side, config)


Reader = tuple[Callable[[Any], ModelConfig], Callable[[dict[str, Tensor], ModelConfig], Named]]
READERS: dict[str, Reader] = {
    "BertForMaskedLM": (_bert_shape, _bert_names),
    "GPT2LMHeadModel": (_gpt2_shape, _gpt2_names),
    "BartForConditionalGeneration": (_bart_shape, _bart_names),
}
"""By class: how its configuration reads as ours, and its parameters under our names."""

"""Shapes of whole models: a configuration, and the published ones by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from attention.checks import check_bool, check_choice, check_float, check_int
from attention.options import near_miss
from models.layers.block import Norm
from models.layers.feedforward import Activation
from models.layers.norm import EPSILON, Normalization

Architecture = Literal["encoder", "decoder", "encoder_decoder"]
Positions = Literal["sinusoidal", "learned", "rotary"]
Head = Literal["linear", "transform"]


@dataclass(frozen=True)
class ModelConfig:
    """A model's shape; the attention is chosen apart from it.

    Attributes:
        architecture: ``encoder`` sees all tokens, ``decoder`` the past, ``encoder_decoder`` is one
            of each.
        vocab_size: tokens that exist.
        d_model: width.
        num_layers: blocks; of each stack, if there are two.
        num_heads: H.
        d_ff: width inside the feed-forward networks.
        max_len: the longest sequence, in tokens.
        num_kv_heads: H_kv; ``None`` means H.
        positions: ``sinusoidal``, ``learned`` or ``rotary``.
        position_offset: see `LearnedPositions`.
        num_token_types: rows of a second embedding, by segment (BERT); 0 = there is none.
        norm: ``pre`` or ``post``.
        normalization: ``layer`` or ``rms``.
        norm_eps: see `models.layers.norm.make_norm`.
        embedding_norm: whether a norm follows the embeddings.
        activation: see `FeedForward`.
        bias: whether the linear layers and norms of the blocks have a bias.
        head: ``linear`` maps hidden states to logits; ``transform`` has a layer, GELU and a norm
            before it, and a bias of the logits (BERT).
        tied: whether the logits' matrix is the token embedding.
        dropout_p: after the embeddings and on the sub-layers' outputs.
        attention_dropout_p: on the attention weights, where the backend has some.
        activation_dropout_p: inside the feed-forward networks.

    Raises:
        ValueError: if a value is out of range.
        TypeError: if a value has the wrong type.
    """

    architecture: Architecture
    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    d_ff: int
    max_len: int
    num_kv_heads: int | None = None
    positions: Positions = "learned"
    position_offset: int = 0
    num_token_types: int = 0
    norm: Norm = "pre"
    normalization: Normalization = "layer"
    norm_eps: float = EPSILON
    embedding_norm: bool = False
    activation: Activation = "gelu"
    bias: bool = True
    head: Head = "linear"
    tied: bool = True
    dropout_p: float = 0.0
    attention_dropout_p: float = 0.0
    activation_dropout_p: float = 0.0

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("vocab_size", "d_model", "num_layers", "num_heads", "d_ff", "max_len"):
            check_int(name, getattr(self, name), minimum=1)
        for name in ("position_offset", "num_token_types"):
            check_int(name, getattr(self, name), minimum=0)
        if self.num_kv_heads is not None:
            check_int("num_kv_heads", self.num_kv_heads, minimum=1)
        for name in ("embedding_norm", "bias", "tied"):
            check_bool(name, getattr(self, name))
        for name in ("dropout_p", "attention_dropout_p", "activation_dropout_p"):
            check_float(name, getattr(self, name), minimum=0.0, below=1.0)
        check_float("norm_eps", self.norm_eps, above=0.0)
        for name, kind in (
            ("architecture", Architecture),
            ("positions", Positions),
            ("norm", Norm),
            ("normalization", Normalization),
            ("activation", Activation),
            ("head", Head),
        ):
            check_choice(name, getattr(self, name), get_args(kind))
        if self.d_model % self.num_heads:
            raise ValueError(
                f"d_model: expected a multiple of num_heads={self.num_heads}, got {self.d_model}"
            )
        if self.position_offset and self.positions != "learned":
            raise ValueError(
                f"position_offset: only learned positions have one; got {self.position_offset} "
                f"with {self.positions}"
            )

    @property
    def head_dim(self) -> int:
        """D."""
        return self.d_model // self.num_heads

    def scaled(self, **changes: Any) -> ModelConfig:
        """Return the configuration with some values changed.

        Raises:
            TypeError: if there is no such value.
            ValueError: if one is out of range.
        """
        accepted = [field.name for field in fields(self)]
        for name in changes:
            if name not in accepted:
                raise TypeError(
                    f"{name}: no such value{near_miss(name, accepted)}; "
                    f"accepted: {', '.join(accepted)}"
                )
        return replace(self, **changes)


CONFIGS: Mapping[str, ModelConfig] = {
    # Devlin et al. 2019, arXiv 1810.04805.
    "bert-base": ModelConfig(
        "encoder", vocab_size=30522, d_model=768, num_layers=12, num_heads=12, d_ff=3072,
        max_len=512, num_token_types=2, norm="post", norm_eps=1e-12, embedding_norm=True,
        head="transform", dropout_p=0.1, attention_dropout_p=0.1,
    ),
    # Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    "gpt2-small": ModelConfig(
        "decoder", vocab_size=50257, d_model=768, num_layers=12, num_heads=12, d_ff=3072,
        max_len=1024, activation="gelu_tanh", dropout_p=0.1, attention_dropout_p=0.1,
    ),
    # Lewis et al. 2020, arXiv 1910.13461.
    "bart-base": ModelConfig(
        "encoder_decoder", vocab_size=50265, d_model=768, num_layers=6, num_heads=12, d_ff=3072,
        max_len=1024, position_offset=2, norm="post", embedding_norm=True, dropout_p=0.1,
    ),
    # The block of Touvron et al. 2023, arXiv 2307.09288, in a size of ours for two CPU cores.
    "llama-small": ModelConfig(
        "decoder", vocab_size=32000, d_model=512, num_layers=8, num_heads=8, d_ff=1408,
        max_len=2048, num_kv_heads=2, positions="rotary", normalization="rms", norm_eps=1e-5,
        activation="swiglu", bias=False, tied=False,
    ),
}  # fmt: skip
"""The published shapes, and small ones of today's block."""


def named_config(name: str) -> ModelConfig:
    """Return a published shape by name.

    Raises:
        ValueError: if there is none of that name; the message lists them.
    """
    if name not in CONFIGS:
        raise ValueError(
            f"config: no configuration {name!r}{near_miss(name, CONFIGS)}; "
            f"there are {', '.join(CONFIGS)}"
        )
    return CONFIGS[name]

"""Embeddings of tokens, token types and positions, the checks of their ids, and logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attention.checks import check_mask
from attention.functional import has_values
from attention.packed import Packed
from models.config import ModelConfig
from models.layers.norm import make_norm
from models.layers.positional import LearnedPositions, SinusoidalPositions

DEVIATION = 0.02
"""Of the normal distribution that embeddings are drawn from, as in BERT and GPT-2."""


class Embeddings(nn.Module):
    """Tokens, their positions and segments, then norm and dropout.

    Args:
        config: of the model.
        tokens: the token embedding; stacks of one model share it.
    """

    def __init__(self, config: ModelConfig, tokens: nn.Embedding) -> None:
        super().__init__()
        self.max_len = config.max_len
        self.tokens = tokens
        # Vaswani et al., section 3.4: beside sinusoids of amplitude 1 the tokens would be lost.
        self.scale = config.d_model**0.5 if config.positions == "sinusoidal" else 1.0
        self.positions: LearnedPositions | SinusoidalPositions | None = None
        shape = {"d_model": config.d_model, "max_len": config.max_len}
        if config.positions == "learned":
            self.positions = LearnedPositions(**shape, offset=config.position_offset)
        elif config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(**shape)
        self.token_types: nn.Embedding | None = None
        if config.num_token_types:
            self.token_types = DrawnEmbedding(config.num_token_types, config.d_model)
        self.norm: nn.Module = nn.Identity()
        if config.embedding_norm:
            self.norm = make_norm(
                config.normalization, config.d_model, eps=config.norm_eps, bias=config.bias
            )
        self.dropout = nn.Dropout(config.dropout_p)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Embed ids ``[B, N]``: ``[B, N, d_model]``."""
        x: Tensor = self.tokens(input_ids) * self.scale
        if self.token_types is not None:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            if token_type_ids is not None:
                _check_token_types(token_type_ids, input_ids, self.token_types.num_embeddings)
            x = x + self.token_types(types)
        elif token_type_ids is not None:
            raise ValueError("token_type_ids: this model has no token types; expected None")
        if self.positions is not None:
            x = self.positions(x, positions)
        out: Tensor = self.dropout(self.norm(x))
        return out


def check_ids(
    ids: Any,
    key_padding_mask: Tensor | None = None,
    *,
    vocab_size: int | None = None,
    max_len: int | None = None,
    name: str = "input_ids",
    mask_name: str = "key_padding_mask",
    unread: int = 0,
    packed: Any = None,
) -> None:
    """Check ids ``[B, N]`` and their mask.

    Args:
        ids: int64 ``[B, N]``.
        key_padding_mask: bool ``[B, N]``, True = a token.
        vocab_size: of the model that reads them; ``None`` = nobody knows.
        max_len: likewise.
        name: what errors call the ids.
        mask_name: what they call the mask.
        unread: tokens at the end that are predicted, but not read: they need no position.
        packed: documents in the one row (`attention.Packed`), of `max_len` tokens each at most.

    Raises:
        ValueError: if an id is not below the vocabulary's size, there are more than the model's
            `max_len`, or a shape does not fit.
        TypeError: if an argument has the wrong type.
    """
    if not isinstance(ids, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(ids).__name__}")
    if ids.dim() != 2 or ids.shape[1] < 1:
        raise ValueError(f"{name}: expected [B, N] with N at least 1, got {tuple(ids.shape)}")
    _check_rows(name, ids, vocab_size, "vocab_size")
    if packed is not None:
        check_documents(packed, ids, max_len)
    elif max_len is not None and ids.shape[1] - unread > max_len:
        raise ValueError(
            f"{name}: {ids.shape[1]} tokens are more than the model's max_len={max_len}"
        )
    if key_padding_mask is not None:
        check_mask(mask_name, key_padding_mask, (ids.shape[0], ids.shape[1]), ids)


def check_documents(packed: Any, row: Tensor, max_len: int | None) -> None:
    """Check packed documents of a row ``[1, N, …]``: each may be as long as the model's longest.

    Raises:
        TypeError: if it is no `attention.Packed`.
        ValueError: if the row is another one, or a document is longer than `max_len`.
    """
    if not isinstance(packed, Packed):
        raise TypeError(f"packed: expected attention.Packed(lengths), got {type(packed).__name__}")
    packed.check_row(row.shape[0], row.shape[1])
    if max_len is not None and packed.longest > max_len:
        raise ValueError(
            f"packed: a document of {packed.longest} tokens is longer than the model's "
            f"max_len={max_len}"
        )


def _check_token_types(types: Any, ids: Tensor, count: int) -> None:
    """Check segments ``[B, N]``, of which there are `count`."""
    if not isinstance(types, Tensor):
        raise TypeError(f"token_type_ids: expected a tensor, got {type(types).__name__}")
    if types.shape != ids.shape:
        raise ValueError(
            f"token_type_ids: expected {tuple(ids.shape)} as input_ids, got {tuple(types.shape)}"
        )
    _check_rows("token_type_ids", types, count, "num_token_types")


def _check_rows(name: str, ids: Tensor, count: int | None, counted: str) -> None:
    """Check that whole numbers are rows of an embedding that has `count`, under that name."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name}: expected whole numbers (int64 or int32), got {ids.dtype}")
    if has_values(ids) and ids.numel():
        low, high = (int(x) for x in torch.aminmax(ids))
        if low < 0 or (count is not None and high >= count):
            accepted = "on" if count is None else f"to {count - 1} ({counted}={count})"
            raise ValueError(
                f"{name}: expected ids from 0 {accepted}, got {low if low < 0 else high}"
            )


class DrawnEmbedding(nn.Embedding):
    """An embedding whose rows are drawn as in BERT."""

    def reset_parameters(self) -> None:
        """Draw the rows anew."""
        nn.init.normal_(self.weight, std=DEVIATION)


class Logits(nn.Module):
    """Map hidden states to logits.

    Args:
        config: of the model.
        tokens: the token embedding, whose weight a tied head uses.
    """

    def __init__(self, config: ModelConfig, tokens: nn.Embedding) -> None:
        super().__init__()
        self.transform: nn.Sequential | None = None
        bias = config.head == "transform"
        if bias:
            self.transform = nn.Sequential(
                nn.Linear(config.d_model, config.d_model),
                nn.GELU(),
                make_norm(config.normalization, config.d_model, eps=config.norm_eps),
            )
        self.proj = _Head(config, bias=bias)
        if config.tied:
            self.proj.weight = tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, N, d_model]`` to ``[B, N, vocab_size]``."""
        out: Tensor = self.proj(x if self.transform is None else self.transform(x))
        return out


class _Head(nn.Linear):
    """A linear layer whose weight is an embedding's or drawn as one; its bias starts at zero."""

    def __init__(self, config: ModelConfig, *, bias: bool) -> None:
        self.is_tied = config.tied
        super().__init__(config.d_model, config.vocab_size, bias=bias)

    def reset_parameters(self) -> None:
        """Draw the weight anew; one that is tied, the embedding draws."""
        if not self.is_tied:
            nn.init.normal_(self.weight, std=DEVIATION)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

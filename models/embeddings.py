"""Embeddings of tokens, token types and positions, and the checks of their ids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attention.functional import has_values
from models.config import ModelConfig
from models.norm import make_norm
from models.positional import (
    LearnedPositions,
    SinusoidalPositions,
)

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


def _check_token_types(types: Any, ids: Tensor, count: int) -> None:
    """Check segments ``[B, N]``, of which there are `count`."""
    if not isinstance(types, Tensor):
        raise TypeError(f"token_type_ids: expected a tensor, got {type(types).__name__}")
    if types.shape != ids.shape:
        raise ValueError(
            f"token_type_ids: expected {tuple(ids.shape)} as input_ids, got {tuple(types.shape)}"
        )
    _check_rows("token_type_ids", types, count, "num_token_types")


def _check_rows(name: str, ids: Tensor, count: int, counted: str) -> None:
    """Check that whole numbers are rows of an embedding that has `count`, under that name."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name}: expected whole numbers (int64 or int32), got {ids.dtype}")
    if has_values(ids) and ids.numel():
        low, high = (int(x) for x in torch.aminmax(ids))
        if low < 0 or high >= count:
            raise ValueError(
                f"{name}: expected ids from 0 to {count - 1} ({counted}={count}), "
                f"got {low if low < 0 else high}"
            )


class DrawnEmbedding(nn.Embedding):
    """An embedding whose rows are drawn as in BERT."""

    def reset_parameters(self) -> None:
        """Draw the rows anew."""
        nn.init.normal_(self.weight, std=DEVIATION)

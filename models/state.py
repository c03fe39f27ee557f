"""The state of a model that decodes: its layers' states and the lengths of its sequences."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attention.checks import check_int
from attention.decoding.state import DecodeState, Mark, check_indices
from models.layers.block import Memory
from models.layers.multihead import MultiheadAttention
from models.layers.positional import places_after
from models.stack import TransformerStack


@dataclass
class ModelState:
    """What a model that decodes has seen: the states of its layers, and how long each sequence is.

    Attributes:
        layers: of the decoder's blocks.
        lengths: tokens of each sequence, int64 ``[B]``.
        memory: of an encoder-decoder: the encoder's output, and what its readers made of it.
    """

    layers: list[DecodeState]
    lengths: Tensor
    memory: Memory | None = field(default=None)

    @property
    def nbytes(self) -> int:
        """Bytes of the layers' states, and of keys and values made of the encoder's output."""
        projected = (self.memory.projected or {}) if self.memory is not None else {}
        read = sum(x.nbytes for pair in projected.values() for x in pair)
        return read + sum(state.nbytes for state in self.layers)

    def positions_of(
        self, ids: Tensor, mask: Tensor | None, *, num_layers: int, max_len: int, name: str
    ) -> Tensor:
        """Return where the tokens of a chunk stand in their sequences, int64 ``[B, N]``.

        Args:
            ids: of the chunk, ``[B, N]``.
            mask: bool ``[B, N]``, True = a token; ``None`` = all are.
            num_layers: of the model that goes on.
            max_len: tokens that the model is built for.
            name: what errors call the ids.

        Raises:
            ValueError: if the state is of another model or batch, or a sequence becomes too long.
        """
        if len(self.layers) != num_layers:
            raise ValueError(
                f"state: made for {len(self.layers)} layers, this model has {num_layers}"
            )
        if ids.shape[0] != len(self.lengths):
            raise ValueError(f"state: made for batch {len(self.lengths)}, got {ids.shape[0]}")
        longest = int((self.lengths + token_counts(ids, mask)).max())
        if longest > max_len:
            raise ValueError(
                f"{name}: a sequence would have {longest} tokens, the model is built for "
                f"max_len={max_len}"
            )
        # An ended sequence has padding alone, for which there may be no position left.
        return places_after(self.lengths, ids.shape[1], mask, last=max_len - 1)

    def count(self, ids: Tensor, mask: Tensor | None) -> None:
        """Count the tokens of a chunk as seen; arguments as of `positions_of`."""
        self.lengths += token_counts(ids, mask)

    def select(self, indices: Tensor) -> None:
        """Keep these sequences, in this order, in place; see `DecodeState.select`.

        Args:
            indices: which, int64 ``[B']``; one may come several times or not at all.
        """
        index = check_indices(indices, len(self.lengths))
        for state in self.layers:
            state.select(index)
        with torch.inference_mode(mode=False), torch.no_grad():
            self.lengths = self.lengths[index]
        if self.memory is not None:
            self.memory = self.memory.of(index)

    def mark(self) -> tuple[Tensor, list[Mark]]:
        """Remember where the state is, for `rewind`; see `DecodeState.mark`."""
        return self.lengths.clone(), [state.mark() for state in self.layers]

    def rewind(self, mark: tuple[Tensor, list[Mark]]) -> None:
        """Go back to a mark; see `DecodeState.rewind`."""
        lengths, layers = mark
        for state, layer_mark in zip(self.layers, layers, strict=True):
            state.rewind(layer_mark)
        self.lengths.copy_(lengths)


def new_state(
    decoder: TransformerStack, like: Tensor, *, batch_size: int, max_len: int
) -> ModelState:
    """Make the state of a decoder before its first token.

    Args:
        decoder: the stack that decodes.
        like: a parameter of the model: of its dtype and device.
        batch_size: B.
        max_len: the most tokens of a sequence.
    """
    device = like.device.type
    casts = like.dtype != torch.float64 and torch.is_autocast_enabled(device)
    layers = []
    for block in decoder.blocks:
        dtype = like.dtype
        if casts and isinstance(block.attention, MultiheadAttention):
            dtype = torch.get_autocast_dtype(device)  # of queries and keys; an LSTM keeps its own
        layers.append(block.init_state(
            batch_size=check_int("batch_size", batch_size, minimum=1), max_len=max_len,
            dtype=dtype, device=like.device,
        ))  # type: ignore[operator]  # fmt: skip
    with torch.inference_mode(mode=False):
        lengths = torch.zeros(batch_size, dtype=torch.int64, device=like.device)
    return ModelState(layers, lengths)


def token_counts(ids: Tensor, mask: Tensor | None) -> int | Tensor:
    """Return how many tokens each sequence of a chunk has: N, or int64 ``[B]``."""
    return ids.shape[1] if mask is None else mask.sum(dim=1)

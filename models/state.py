"""The state of a model that decodes: its layers' states and the lengths of its sequences."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attention.decoding.state import DecodeState, Mark, check_indices
from models.block import Memory


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
        for state, own in zip(self.layers, layers, strict=True):
            state.rewind(own)
        self.lengths.copy_(lengths)

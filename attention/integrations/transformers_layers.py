"""Our attention in transformers' own Longformer, LED, BigBird and BigBirdPegasus models.

The layers keep their projections, so a checkpoint's weights, their names and the logits stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attention.backends.bigbird.attention import BigBirdAttention
from attention.backends.bigbird.grid import BlockGrid
from attention.backends.bigbird.pattern import BlockPattern
from attention.backends.longformer import LongformerAttention
from attention.checks import UnsupportedError

PAPERS_LENGTHS = (1024, 3072, 4096)
"""Tokens: there transformers draws blocks for its longest sequence, within the first 1,024."""


def swap(model: nn.Module) -> nn.Module:
    """Put our attention into a Longformer, LED or BigBird model of transformers, in place.

    Global tokens, padding, dropout and BigBird's pattern stay what they are: in eval mode all of
    its random blocks are block 0, which then counts as often; in training they are drawn as
    theirs are. Attention weights as an output are refused. A BigBird model that meets a sequence
    too short for its blocks goes over to full attention for good, as it does without us. Of LED
    and BigBirdPegasus it is the encoder's self-attention; the decoder's is exact.

    Args:
        model: with one of the classes of `LAYERS` in it.

    Returns:
        `model`, with the same state dict.

    Raises:
        ValueError: if it has none.
    """
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if type(module).__name__ in LAYERS
        and type(module).__module__.startswith("transformers.models.")
    ]
    if not layers:
        raise ValueError(
            f"model: expected one with {' or '.join(LAYERS)} in it, got {type(model).__name__}"
        )
    for name, theirs in layers:
        parent, _, attribute = name.rpartition(".")
        layer = LAYERS[type(theirs).__name__](theirs).train(theirs.training)
        setattr(model.get_submodule(parent), attribute, layer)
    return model


class _Layer(nn.Module):
    """What both have: the projections of a layer, by their names."""

    projections: tuple[str, ...] = ("query", "key", "value")

    def __init__(self, theirs: Any, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        for name in self.projections:
            self.add_module(name, getattr(theirs, name))

    def heads(self, name: str, x: Tensor) -> Tensor:
        """Project ``[B, N, H·D]`` by a layer: ``[B, H, N, D]``."""
        out = self.get_submodule(name)(x)
        split: Tensor = out.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        return split


class LongformerLayer(_Layer):
    """In the place of ``LongformerSelfAttention`` and ``LEDEncoderSelfAttention``."""

    projections = ("query", "key", "value", "query_global", "key_global", "value_global")

    def __init__(self, theirs: Any) -> None:
        super().__init__(theirs, theirs.num_heads, theirs.head_dim)
        self.attend = LongformerAttention(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            window=theirs.one_sided_attn_window_size,
            dropout_p=theirs.dropout,
        )

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        is_index_masked: Tensor | None = None,
        is_index_global_attn: Tensor | None = None,
        is_global_attn: bool | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor]:
        """Attend: ``[B, N, H·D]`` in and out.

        Args:
            hidden_states: ``[B, N, H·D]``.
            attention_mask: ``[B, N]``: negative at padding, 0 local, positive global; the next
                two say the same.
            is_index_masked: bool ``[B, N]``, True = padding.
            is_index_global_attn: bool ``[B, N]``, True = global.
            is_global_attn: whether any is.
            output_attentions: refused.

        Raises:
            UnsupportedError: if attention weights are asked for.
        """
        _refuse_weights(output_attentions)
        if is_index_masked is None and attention_mask is not None:
            is_index_masked = attention_mask < 0
        if is_index_global_attn is None and attention_mask is not None:
            is_index_global_attn = attention_mask > 0
        q, k, v = (self.heads(name, hidden_states) for name in self.projections[:3])
        more: dict[str, Any] = {}
        if is_index_global_attn is not None and bool(is_index_global_attn.any()):
            q_global = torch.zeros_like(q)  # of the global tokens alone
            batch, at = is_index_global_attn.nonzero(as_tuple=True)
            rows = self.get_submodule("query_global")(hidden_states[batch, at])
            q_global[batch, :, at] = rows.unflatten(-1, (self.num_heads, self.head_dim))
            k_global, v_global = (self.heads(name, hidden_states) for name in self.projections[4:])
            more = {
                "global_mask": is_index_global_attn, "global_qkv": (q_global, k_global, v_global)
            }  # fmt: skip
        mask = None
        if is_index_masked is not None and bool(is_index_masked.any()):
            mask = ~is_index_masked
        return (self.attend(q, k, v, key_padding_mask=mask, **more).transpose(1, 2).flatten(2),)


class _Gathered(BlockGrid):
    """A grid whose blocks are always gathered: a mask cannot count a key twice."""

    is_small = False


class GivenPattern(BlockPattern):
    """A pattern whose random blocks are given.

    Attributes:
        given: ``[H, blocks - 2, r]``: of every row of blocks but the first and the last.
    """

    given: Tensor

    def grid(self, length: int, is_causal: bool) -> BlockGrid:
        """Cut a sequence into blocks that are always gathered."""
        return _Gathered(length, self.block_size, 0, is_causal)

    def random_blocks(self, grid: BlockGrid, device: torch.device) -> Tensor:
        """Return the given blocks ``[H, blocks, r]``."""
        return nn.functional.pad(self.given.to(device), (0, 0, 1, 1), value=-1)


class GivenBlocks(BigBirdAttention):
    """BigBird whose random blocks are given, and may be the same block several times.

    A block that stands there twice counts twice in the softmax. The blocks are those of the whole
    sequence: padding is hidden where it lies.
    """

    pattern: GivenPattern
    pattern_type = GivenPattern

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Attend tile by tile; see the base."""
        hidden = None if key_padding_mask is None else ~key_padding_mask
        self.kernel = "tiled_blocks"
        return self._attend_span(q, k, v, is_causal, hidden)


class BigBirdLayer(_Layer):
    """In the place of ``BigBirdBlockSparseAttention`` and ``BigBirdPegasus…``."""

    def __init__(self, theirs: Any) -> None:
        super().__init__(theirs, theirs.num_attention_heads, theirs.attention_head_size)
        self.plan = (theirs,)  # in a tuple: no module of ours, but it draws the blocks
        self.attend = GivenBlocks(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            block_size=theirs.block_size,
            num_random_blocks=theirs.num_random_blocks,
            kernel="tiled",
        )
        self.drawn: dict[tuple[int, bool], Tensor] = {}

    def forward(
        self,
        hidden_states: Tensor,
        band_mask: Tensor | None = None,
        from_mask: Tensor | None = None,
        to_mask: Tensor | None = None,
        from_blocked_mask: Tensor | None = None,
        to_blocked_mask: Tensor | None = None,
        output_attentions: bool = False,
        **_of_transformers: Any,
    ) -> tuple[Tensor, None]:
        """Attend: ``[B, N, H·D]`` in and out, and no weights.

        Args:
            hidden_states: ``[B, N, H·D]``, N whole blocks.
            band_mask: of theirs; `to_mask` says all.
            from_mask: likewise.
            to_mask: ``[B, 1, 1, N]``, 1 = a real token.
            from_blocked_mask: likewise.
            to_blocked_mask: likewise.
            output_attentions: refused.
            **_of_transformers: what their layer passes on and does not read.

        Raises:
            UnsupportedError: if attention weights are asked for.
            ValueError: if the sequence is not whole blocks.
        """
        _refuse_weights(output_attentions)
        seq_len = hidden_states.shape[1]
        if seq_len % self.attend.block_size:
            raise ValueError(
                f"hidden_states: expected a multiple of {self.attend.block_size} tokens, "
                f"got {seq_len}"
            )
        self.attend.pattern.given = self._blocks(seq_len)
        q, k, v = (self.heads(name, hidden_states) for name in self.projections)
        mask = None
        if to_mask is not None and not bool((to_mask > 0).all()):
            mask = (to_mask > 0).reshape(to_mask.shape[0], seq_len)
        out = self.attend(q, k, v, key_padding_mask=mask)
        return out.transpose(1, 2).flatten(2), None

    def _blocks(self, seq_len: int) -> Tensor:
        """Return the random blocks that theirs would take: ``[H, blocks - 2, r]``; cached."""
        key = seq_len, self.training
        if key not in self.drawn:
            self.drawn[key] = (
                _draw(self.plan[0], seq_len) if self.training else self._zeros(seq_len)
            )
        return self.drawn[key]

    def _zeros(self, seq_len: int) -> Tensor:
        rows = seq_len // self.attend.block_size - 2
        return torch.zeros(self.num_heads, rows, self.attend.num_random_blocks, dtype=torch.int64)


def _draw(theirs: Any, seq_len: int) -> Tensor:
    """Draw random blocks by a layer of theirs, from its seed; the caller's generator stays."""
    size, count, heads = theirs.block_size, theirs.num_random_blocks, theirs.num_attention_heads
    before = np.random.get_state()  # theirs draws from the global generator
    theirs.training = True
    try:
        np.random.seed(theirs.seed)
        if seq_len in PAPERS_LENGTHS:
            longest = theirs.max_seqlen
            rows = [
                theirs._bigbird_block_rand_mask(longest, longest, size, size, count, last_idx=1024)
                for _ in range(heads)
            ]
        else:
            ends, counts = theirs._get_rand_attn_plan(seq_len, size, count)
            rows = theirs._bigbird_block_rand_mask_with_head(
                from_seq_length=seq_len, to_seq_length=seq_len, from_block_size=size,
                to_block_size=size, num_heads=heads, plan_from_length=ends,
                plan_num_rand_blocks=counts,
            )  # fmt: skip
    finally:
        np.random.set_state(before)
    return torch.from_numpy(np.stack(rows)[:, : seq_len // size - 2].astype(np.int64))


def _refuse_weights(output_attentions: bool) -> None:
    if output_attentions:
        raise UnsupportedError(
            "output_attentions: attention weights are never made; accepted: False"
        )


LAYERS: dict[str, Callable[[Any], nn.Module]] = {
    "LongformerSelfAttention": LongformerLayer,
    "LEDEncoderSelfAttention": LongformerLayer,
    "BigBirdBlockSparseAttention": BigBirdLayer,
    "BigBirdPegasusBlockSparseAttention": BigBirdLayer,
}
"""By the class that a layer stands in for."""

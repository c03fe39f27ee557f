"""BigBird's block-sparse attention of the package transformers, with its three projections.

Zaheer et al. 2020, arXiv 2007.14062; ``BigBirdBlockSparseAttention``, randomly initialised. Its
random blocks are drawn otherwise than ours, and outside of training it takes block 0 for all of
them: the work is the same, the pattern is not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attention.backends.bigbird import BigBirdAttention
from attention.base import Attention
from results.schema import Case
from suites.peers.base import Built, Peer, Projections
from suites.peers.registry import register


@register("transformers-bigbird")
class TransformersBigBird(Peer):
    """Gathered blocks: window by rolled copies, random blocks by a gather, all materialised."""

    summary = "BigBirdBlockSparseAttention, gathered blocks"
    project = "Hugging Face transformers"
    distribution = "transformers"
    install = "pip install transformers"
    counterpart = "bigbird"
    options = {"block_size": 64, "num_random_blocks": 3}
    num_projections = 3
    same_function = False
    difference = "the same number of blocks a row, but other random ones (in forward all block 0)"

    def load(self) -> None:
        """Import the classes."""
        from transformers import BigBirdConfig  # noqa: F401
        from transformers.models.big_bird.modeling_big_bird import (  # noqa: F401
            BigBirdBlockSparseAttention,
            BigBirdModel,
        )

    def shape_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Refuse lengths that are no whole blocks, or too few of them, and extra global tokens."""
        assert isinstance(ours, BigBirdAttention)
        reasons = []
        block, random = ours.block_size, ours.num_random_blocks
        least = 6 + 2 * random  # as its model asks: with fewer blocks it attends to everything
        if case.seq_len % block or case.seq_len // block < least:
            reasons.append(
                f"seq_len: expected a multiple of the block size {block}, {least} blocks at "
                f"least; got {case.seq_len}"
            )
        if ours.num_global_tokens:
            reasons.append(f"num_global_tokens: it has none; got {ours.num_global_tokens}")
        return reasons

    def build(self, ours: Attention, case: Case) -> Built:
        """Build the module with random weights, and the masks of a sequence without padding."""
        from transformers import BigBirdConfig
        from transformers.models.big_bird.modeling_big_bird import (
            BigBirdBlockSparseAttention,
            BigBirdModel,
        )

        assert isinstance(ours, BigBirdAttention)
        config = BigBirdConfig(
            hidden_size=case.num_heads * case.head_dim,
            num_attention_heads=case.num_heads,
            block_size=ours.block_size,
            num_random_blocks=ours.num_random_blocks,
            max_position_embeddings=case.seq_len,
            use_bias=True,
        )
        theirs = BigBirdBlockSparseAttention(config, seed=case.seed % 2**32)
        real = torch.ones(case.batch, case.seq_len)
        masks = BigBirdModel.create_masks_for_block_sparse_attn(real, ours.block_size)
        return Built(
            _Call(theirs, *masks),
            Projections(theirs.query, theirs.key, theirs.value),
            "BigBirdBlockSparseAttention",
        )


class _Call(nn.Module):
    blocked: Tensor
    band: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(
        self, theirs: nn.Module, blocked: Tensor, band: Tensor, rows: Tensor, columns: Tensor
    ) -> None:
        super().__init__()
        self.theirs = theirs
        self.register_buffer("blocked", blocked)
        self.register_buffer("band", band)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, x: Tensor, *, is_causal: bool) -> Tensor:
        """Attend within the sequence: ``[B, N, d_model]``."""
        out = self.theirs(x, self.band, self.rows, self.columns, self.blocked, self.blocked)[0]
        assert isinstance(out, Tensor)
        return out

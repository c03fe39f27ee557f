"""Transformer parts that take any backend: multi-head layer, block, encoder stack.

The same block serves every backend, so a difference between two measurements is a difference
between two attentions.
"""

from models.block import TransformerBlock
from models.encoder import TransformerEncoder
from models.feedforward import FeedForward
from models.identity import IdentityAttention
from models.multihead import MultiheadAttention
from models.positional import SinusoidalPositions

__all__ = [
    "FeedForward",
    "IdentityAttention",
    "MultiheadAttention",
    "SinusoidalPositions",
    "TransformerBlock",
    "TransformerEncoder",
]

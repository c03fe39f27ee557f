"""Transformer parts that take any backend, and whole models made of them.

The same block serves every backend, so a difference between two measurements is a difference
between two attentions.
"""

from models.catalogue import count_parameters
from models.config import CONFIGS, ModelConfig, named_config
from models.encoder import TransformerEncoder
from models.from_torch import from_torch
from models.generation import Generated, generate
from models.huggingface import from_huggingface
from models.layers.block import Memory, TransformerBlock
from models.layers.feedforward import FeedForward
from models.layers.identity import IdentityAttention
from models.layers.multihead import MultiheadAttention
from models.layers.positional import LearnedPositions, RotaryPositions, SinusoidalPositions
from models.layers.recurrent import LSTMLayer
from models.objectives import (
    mask_tokens,
    masked_lm_loss,
    next_token_loss,
    sequence_to_sequence_loss,
)
from models.stack import TransformerStack
from models.state import ModelState
from models.transformer import TransformerModel

__all__ = [
    "CONFIGS",
    "FeedForward",
    "Generated",
    "IdentityAttention",
    "LSTMLayer",
    "LearnedPositions",
    "Memory",
    "ModelConfig",
    "ModelState",
    "MultiheadAttention",
    "RotaryPositions",
    "SinusoidalPositions",
    "TransformerBlock",
    "TransformerEncoder",
    "TransformerModel",
    "TransformerStack",
    "count_parameters",
    "from_huggingface",
    "from_torch",
    "generate",
    "mask_tokens",
    "masked_lm_loss",
    "named_config",
    "next_token_loss",
    "sequence_to_sequence_loss",
]

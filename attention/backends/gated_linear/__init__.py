"""Gated linear attention: a decaying sum of keys times values."""

from attention.backends.gated_linear.attention import GatedLinearAttention as GatedLinearAttention

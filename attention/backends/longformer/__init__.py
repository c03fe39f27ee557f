"""Longformer: a sliding window and global tokens."""

from attention.backends.longformer.attention import LongformerAttention as LongformerAttention

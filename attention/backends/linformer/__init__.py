"""Linformer: softmax over projected keys and values."""

from attention.backends.linformer.attention import LinformerAttention
from attention.backends.linformer.projection import LinformerProjection

__all__ = ["LinformerAttention", "LinformerProjection"]

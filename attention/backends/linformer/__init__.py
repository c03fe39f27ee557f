"""Linformer: softmax over projected keys and values."""

from attention.backends.linformer.attention import LinformerAttention as LinformerAttention
from attention.backends.linformer.projection import LinformerProjection as LinformerProjection

"""SDPA: torch's fused exact attention."""

from attention.backends.sdpa.attention import SDPAAttention
from attention.backends.sdpa.kernels import KERNELS

__all__ = ["KERNELS", "SDPAAttention"]

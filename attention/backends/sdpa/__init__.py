"""SDPA: torch's fused exact attention."""

from attention.backends.sdpa.attention import SDPAAttention as SDPAAttention
from attention.backends.sdpa.kernels import KERNELS as KERNELS

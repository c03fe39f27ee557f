"""TODO attention/kernels."""

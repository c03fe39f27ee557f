"""Kernels: the computations that backends are made of.

Tiles of softmax attention, linear attention by running sums, flex attention, torch's fused
attention, and products by oneDNN. May import nothing of `attention` but `problem`, `checks`,
`functional`, `derivatives`, `exact`.
"""

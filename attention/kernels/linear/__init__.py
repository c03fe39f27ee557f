"""Linear attention ``φ(Q)(φ(K)ᵀV)``: in tiles, in large batched products, and token by token."""

"""Several ranks: what they exchange, and the ring of fused attention."""

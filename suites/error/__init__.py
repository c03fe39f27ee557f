"""Suite error: the error against exact attention, by inputs, sizes and seeds."""

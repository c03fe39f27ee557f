"""Recurrences over a matrix a head, computed by chunks: gated linear attention, the delta rule."""

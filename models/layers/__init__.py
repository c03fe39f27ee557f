"""Layers and the block that is made of them: projections, norms, positions, what mixes tokens.

Nothing here knows a whole model; `models` itself may import all of it.
"""

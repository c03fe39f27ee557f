"""What is computed from a run once: series, exponents, crossovers, roofline.

May import `records`, `statistics` and `text`.
"""

"""Which attention to use: candidates, evidence, ranking, and the answer as text and JSON.

May import every room but `comparison` and `export`.
"""

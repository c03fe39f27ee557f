"""Two runs beside each other: pairing, verdicts, and their page.

May import every room but `recommendation` and `export`.
"""

"""How figures are drawn: theme, panels, their data, SVG.

May import `analysis` and the rooms below it.
"""

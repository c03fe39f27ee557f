"""The report's first screen: its sentence, where it was measured, one table, one figure.

May import `recommendation`, `chapters` and the rooms below them.
"""

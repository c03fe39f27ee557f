"""The chapters of the report, a folder each: rows, tables, figures, sentences.

May import every room but `comparison`, `recommendation` and `export`.
"""

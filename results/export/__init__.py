"""Files for other programs: tables as CSV, JSON and Parquet, and asv's own.

May import every room.
"""

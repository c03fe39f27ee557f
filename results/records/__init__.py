"""Records on the disk: read, validate, merge, write; one tidy frame.

May import `text` alone.
"""

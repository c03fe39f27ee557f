"""How numbers, settings and names are written.

May import no other room.
"""

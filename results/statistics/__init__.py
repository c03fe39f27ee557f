"""Estimators and intervals: no records, no frames.

May import no other room.
"""

"""Processes: start a worker, watch it, limit its memory, reap what it left. No torch."""

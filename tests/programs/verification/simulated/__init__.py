"""Simulated sweeps: curves, machines and launches whose truth is known."""

"""The machine: what disturbs a measurement, its roofs, and the sentinel."""

"""The machine: what disturbs a measurement, and its roofs."""

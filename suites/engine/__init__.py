"""TODO suites/engine."""

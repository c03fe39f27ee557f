"""TODO suites/machine."""

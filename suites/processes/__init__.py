"""TODO suites/processes."""

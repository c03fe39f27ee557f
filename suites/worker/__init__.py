"""TODO suites/worker."""

"""TODO suites/error."""

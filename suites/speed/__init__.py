"""TODO suites/speed."""

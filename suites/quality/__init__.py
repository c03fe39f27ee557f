"""TODO suites/quality."""

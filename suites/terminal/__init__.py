"""TODO suites/terminal."""

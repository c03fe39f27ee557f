"""TODO suites/arms."""

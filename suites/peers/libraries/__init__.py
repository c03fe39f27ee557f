"""TODO suites/peers/libraries."""

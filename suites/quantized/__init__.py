"""TODO suites/quantized."""

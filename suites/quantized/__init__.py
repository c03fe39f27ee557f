"""Suite quantized: weights in fewer bits."""

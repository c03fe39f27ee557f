"""Decoding token by token: the state that a backend keeps, its caches, the class that uses them."""

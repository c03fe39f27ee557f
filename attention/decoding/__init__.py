"""Decoding token by token: a backend's state, its caches, and the class that uses them."""

"""Other people's models with these backends: a module a library, which is imported there alone."""

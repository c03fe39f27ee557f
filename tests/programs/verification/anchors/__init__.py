"""The same functions timed by other tools, each as it is used by default."""

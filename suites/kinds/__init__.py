"""What a case of each kind does, and the answer that a child process gives."""

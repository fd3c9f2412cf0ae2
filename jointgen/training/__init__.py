"""The training loop, what it is set up from, its state, and when it stops."""

"""What a component promises: protocols of families, networks, critics, data and metrics, and what they share."""

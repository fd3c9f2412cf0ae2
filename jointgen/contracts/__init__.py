"""The promises of components: protocols of families, networks, critics, data and metrics, and what they share."""

"""Image files, prepared images, and images that a user brings."""

"""Components by kind and name, and the plugins that bring them."""

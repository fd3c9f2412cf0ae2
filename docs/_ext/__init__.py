"""What the site needs besides Sphinx: pages that follow from the code, and formulas."""

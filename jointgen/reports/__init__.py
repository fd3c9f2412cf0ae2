"""Shows runs and recipes to people: explanations, pages, comparisons and pictures."""

"""From an objective to a plan: lowering, gradient paths, requirements, and the parts that are built."""

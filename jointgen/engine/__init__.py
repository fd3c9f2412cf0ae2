"""From a plan to gradients: programs, updates, steps, optimizers."""

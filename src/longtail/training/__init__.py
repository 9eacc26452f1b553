"""Training: recipes and stages, budgets, the loop, state on disk, precision and processes."""

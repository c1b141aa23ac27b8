"""Many updates into one, one update into the next model, and what an update must pass before that."""

"""Who trains in a round, and who evaluates it."""

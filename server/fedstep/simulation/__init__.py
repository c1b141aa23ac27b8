"""The real engine with clients in the same process, on a clock of its own; it stands on both sides, under neither."""

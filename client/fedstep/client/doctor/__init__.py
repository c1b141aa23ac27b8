"""`fedstep doctor`: whether this machine could train for a coordinator, in small checks."""

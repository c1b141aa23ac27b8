"""The tasks that fedstep brings."""

"""A study as it happens, as a picture on a terminal."""

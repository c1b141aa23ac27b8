"""Typed clients of a coordinator, for programs."""

"""What every test end to end may ask for."""

from e2e.fixtures import programs

__all__ = ["programs"]

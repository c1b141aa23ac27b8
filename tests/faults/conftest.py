"""What every test of faults may ask for."""

from e2e.fixtures import programs

__all__ = ["programs"]

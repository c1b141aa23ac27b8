"""fedstep's version, as installed."""

from importlib.metadata import version

VERSION = version("fedstep")
"""What both sides tell each other."""

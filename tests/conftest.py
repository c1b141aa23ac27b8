"""What every test may ask for."""

from hypothesis import settings

from contract.postgres import postgres_database, postgres_server

__all__ = ["postgres_database", "postgres_server"]

# How long an example takes says more of the machine than of the code.
settings.register_profile("fedstep", deadline=None)
settings.load_profile("fedstep")

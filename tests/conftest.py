"""What every test may ask for."""

import os

# One thread a process, also in the processes that tests start: tests run in parallel, and two threads on a busy core
# wait for each other far longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Ray starts a cluster with tokens where its user's home happens to hold one, and then asks everybody for it.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from hypothesis import settings  # what it imports may read it

from contract.postgres import own_postgres_server, postgres_database, postgres_server

__all__ = ["own_postgres_server", "postgres_database", "postgres_server"]

# How long an example takes says more of the machine than of the code.
settings.register_profile("fedstep", deadline=None)
settings.load_profile("fedstep")

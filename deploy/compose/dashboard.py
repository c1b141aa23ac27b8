"""Starts optuna-dashboard once Optuna's tables are there: it may read them, and would try to make them.

They come with the first study that is tuned by Optuna.

    python dashboard.py OPTION... URL    as for optuna-dashboard
"""

import os
import sys
import time

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, NullPool, create_engine

_PAUSE_S = 2


def ready(engine: Engine) -> bool:
    """Whether Optuna has made its tables; their revision is what it writes last."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() is not None


def main(arguments: list[str]) -> None:
    """Waits, then becomes optuna-dashboard."""
    engine = create_engine(arguments[-1], poolclass=NullPool)
    if not ready(engine):
        print("The dashboard starts with the first study that Optuna tunes.", flush=True)
    while not ready(engine):
        time.sleep(_PAUSE_S)
    os.execvp("optuna-dashboard", ["optuna-dashboard", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])

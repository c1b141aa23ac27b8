"""A table of several hospitals' patients, one hospital a client.

fedstep data show examples/hospitals.py --data patients.csv --option partitioner=natural --clients 3
"""

from fedstep.client.tasks.tabular import ColumnMap, TabularTask


class Hospitals(TabularTask):
    """Will the patient be back within a month?"""

    name = "hospitals"
    partitioner = "natural"
    group_noun = "hospitals"
    columns = ColumnMap(
        features=("age", "stays", "pressure"),
        target="back",
        classes=("no", "yes"),
        natural="hospital",
        scales={"age": (50.0, 20.0), "pressure": (120.0, 15.0)},
    )

"""The upper part of the picture: how far the study is, how long it will take, who is there, and what is best."""

from rich.text import Text

from fedstep.common import hyperparameters as hp
from fedstep.server.cli.live.marks import bar, seconds_text
from fedstep.server.report.units import bytes_text
from fedstep.v1 import progress_pb2 as pb

_STATES = {"running": "green", "failed": "bold red"} | dict.fromkeys(
    ("stopping", "pausing", "paused", "interrupted"), "yellow"
)
_LAST_ROUNDS = ("stopping", "pausing")
UNDER_WAY = ("running", *_LAST_ROUNDS)
"""States of a study in which clients work for it."""
_NOUNS = {"trials": "trials", "rounds": "rounds", "client_rounds": "client-rounds"}
_LABEL = 8


def head(snapshot: pb.Snapshot, width: int) -> list[Text]:
    """A few lines, each no wider than that."""
    lines = [_title(snapshot), _budget(snapshot, width), _left(snapshot), _fleet(snapshot), _best(snapshot)]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _title(snapshot: pb.Snapshot) -> Text:
    state = (snapshot.state, _STATES.get(snapshot.state, ""))
    return Text.assemble((snapshot.study, "bold"), "  ", state, f"  task {snapshot.task}, tuner {snapshot.tuner}")


def _labelled(label: str, *parts: Text | str) -> Text:
    return Text.assemble((f"{label:<{_LABEL}}", "bright_black"), *parts)


def _budget(snapshot: pb.Snapshot, width: int) -> Text:
    """What was spent: a bar for the kind that there is least left of, and all of them in words."""
    bounded = [spending for spending in snapshot.spent if spending.limit]
    others = [spending for spending in snapshot.spent if not spending.limit and spending.spent]
    share = max((spending.spent / spending.limit for spending in bounded), default=0.0)
    said = Text(", ").join([*(Text(_amount(s)) for s in bounded), *(Text(_amount(s), "bright_black") for s in others)])
    if not bounded:
        return _labelled("spent", said)
    return _labelled("spent", bar(share, max(10, width // 5), "green"), f" {min(share, 1):>4.0%}  ", said)


def _amount(spending: pb.BudgetUse) -> str:
    if spending.kind == "seconds":
        spent, limit, noun = seconds_text(spending.spent), seconds_text(spending.limit), ""
    elif spending.kind == "payload_bytes":
        spent, limit, noun = bytes_text(spending.spent), bytes_text(spending.limit), ""
    else:
        spent, limit, noun = f"{spending.spent:,.0f}", f"{spending.limit:,.0f}", f" {_NOUNS[spending.kind]}"
    return f"{spent} of {limit}{noun}" if spending.limit else f"{spent}{noun}"


def _left(snapshot: pb.Snapshot) -> Text:
    if not snapshot.HasField("time_left"):
        unknown = "known after the first round" if snapshot.state in UNDER_WAY else "–"
        return _labelled("left", Text(unknown, "bright_black"))
    if snapshot.state in _LAST_ROUNDS:
        return _labelled("left", "the rounds under way")
    left = snapshot.time_left
    if not left.most.ToTimedelta():
        return _labelled("left", "nothing but the result")
    about, least, most = (seconds_text(d.ToTimedelta().total_seconds()) for d in (left.about, left.least, left.most))
    around = "" if least == most else f"  ({least} to {most})"
    return _labelled("left", f"about {about}", Text(around, "bright_black"))


def _fleet(snapshot: pb.Snapshot) -> Text:
    fleet = snapshot.fleet
    idle = max(0, fleet.connected - fleet.working)
    text = _labelled("fleet", f"{fleet.connected} connected: {fleet.working} working, {idle} idle")
    if fleet.lost_touch:
        text.append(f", {fleet.lost_touch} lost touch", "yellow")
    if snapshot.state not in UNDER_WAY:
        return text
    if fleet.for_study < fleet.needed:
        text.append(f"; {fleet.for_study} of the {fleet.needed} that a round needs", "bold yellow")
    elif fleet.for_study != fleet.connected:
        text.append(f"; {fleet.for_study} for this study")
    return text


def _best(snapshot: pb.Snapshot) -> Text:
    if not snapshot.HasField("best"):
        return _labelled("best", Text("nothing measured yet", "bright_black"))
    best = snapshot.best
    noun = "trial" if snapshot.by_trials else "arm"
    value = Text(f"{snapshot.metric} {best.value:.4f}", "bold") if best.HasField("value") else Text("not measured")
    point = dict(sorted(hp.map_from_proto(best.hyperparameters).items()))
    return _labelled("best", value, f"  {noun} {best.number}: {hp.describe(point) or 'the defaults'}")

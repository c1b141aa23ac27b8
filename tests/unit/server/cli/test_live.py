"""The picture of a study on a terminal, from snapshots that stand still."""

import io
from datetime import timedelta

import pytest
from rich.console import Console
from unit.server.cli.snapshots import COHORT, arm, client, crowd, event, phase, snapshot, spending

from fedstep.server.cli.live.screen import Screen
from fedstep.v1 import progress_pb2 as pb

SIZES = [(60, 24), (100, 36), (160, 45)]


def screen(found: pb.Snapshot | None) -> Screen:
    shown = Screen("demo", "Ctrl-C stops watching; the study goes on.")
    shown.snapshot = found
    shown.tell(event(1, "trial_pruned", "Trial 1 is pruned at accuracy 0.1300 after 3 rounds."))
    shown.tell(
        event(2, "client_told_to_send", "client-11 would be done after 55.0 s, too late: " + 30 * "it is told. ")
    )
    shown.tell(event(3, "trial_started", "Trial 4: lr 0.2."))
    return shown


def drawn(shown: Screen, width: int, height: int) -> list[str]:
    """As it stands on a terminal of that size, without colours."""
    console = Console(file=io.StringIO(), record=True, width=width, height=height, force_terminal=True)
    console.print(shown)
    return console.export_text(styles=False).splitlines()


def line(lines: list[str], word: str) -> str:
    return next(line for line in lines if word in line)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_fits_the_terminal_and_tells_the_most_important(width: int, height: int) -> None:
    lines = drawn(screen(snapshot()), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "demo  running  task digits, tuner optuna" in text
    assert "4 of 10 trials" in text
    assert "about 2 min  (95 s to 3 min)" in text
    assert "9 connected: 6 working, 3 idle, 1 lost touch" in text
    assert "accuracy 0.9512  trial 2: batch_size 8, lr 0.18" in text
    assert "Trial 4, round 2  training  1 of 8 updates · 2.1 s of 30 s" in text
    assert "Trial 4: lr 0.2." in text
    assert lines[-1].rstrip() == "Ctrl-C stops watching; the study goes on."


def test_a_client_has_a_bar_its_projected_finish_and_its_losses() -> None:
    lines = drawn(screen(snapshot()), 100, 36)
    training, done = line(lines, "client-1 "), line(lines, "client-2 ")
    assert training.count("━") == pytest.approx(0.6 * (training.count("━") + training.count("─")), abs=1)
    assert "60/100        ≈ 4.2 s" in training
    assert "0.610" in training
    assert "▇▆▃▁▁" in training
    assert "─" not in done
    assert "✓ 1.9 s" in done
    assert "41 s, late" in line(lines, "client-3 ")
    assert "no step yet" in line(lines, "client-10")
    assert "sends part" in line(lines, "client-11")
    assert "its loss" in line(lines, "client-12")
    assert "lost touch" in line(lines, "client-13")
    assert "sending" in line(lines, "client-14")


def test_clients_that_all_fit_keep_their_places() -> None:
    lines = drawn(screen(snapshot()), 100, 36)
    names = [line.split()[0] for line in lines if line.startswith("  client-")]
    assert names == [f"client-{n}" for n in (1, 2, 3, 10, 11, 12, 13, 14)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_of_a_large_cohort_the_slowest_are_shown_and_the_others_counted(width: int, height: int) -> None:
    lines = drawn(screen(snapshot(crowd(140))), width, height)
    assert len(lines) <= height
    names = [line.split()[0] for line in lines if line.startswith("  client-")]
    assert names == [f"client-{number:04d}" for number in range(len(names))]
    assert f"and {140 - len(names)} more clients" in line(lines, "more clients")


def test_what_is_measured_is_shown_too() -> None:
    measuring = [client(f"c{n}", pb.WORK_STATE_MEASURING, 0, asked=0) for n in range(2)]
    answered = client("c2", pb.WORK_STATE_DONE, 0, 0.7, asked=0)
    found = snapshot(phase(*measuring, answered, kind=pb.PHASE_KIND_MEASURE))
    lines = drawn(screen(found), 100, 36)
    assert "measuring  1 of 3 answers" in line(lines, "Trial 4, round 2")
    assert "measuring" in line(lines, "  c0")
    assert "✓ 0.7 s" in line(lines, "  c2")


def test_rounds_that_run_at_the_same_time_share_the_lines() -> None:
    found = snapshot(*(phase(*COHORT, trial=number) for number in (3, 4)))
    lines = drawn(screen(found), 100, 30)
    titles = [line for line in lines if " round 2 " in line]
    assert [title.split(",")[0] for title in titles] == ["Trial 3", "Trial 4"]
    assert len([line for line in lines if "more client" in line]) == 2


def test_of_more_phases_than_lines_each_has_one_and_the_rest_is_counted() -> None:
    found = snapshot(*(phase(*COHORT, trial=number) for number in range(20)))
    lines = drawn(screen(found), 100, 30)
    titles = [line for line in lines if " round 2 " in line]
    assert f"and {20 - len(titles)} more phases" in "\n".join(lines)


def test_the_best_trial_is_marked_and_always_there() -> None:
    found = snapshot()
    found.arms.extend(arm(number, "pruned", 1, 0.1) for number in range(5, 30))
    found.arm_count = 30
    lines = drawn(screen(found), 100, 24)
    assert "2 ★" in "\n".join(lines)
    assert "more: fedstep study trials demo" in "\n".join(lines)


def test_arms_are_called_by_what_they_are_for() -> None:
    found = snapshot()
    found.by_trials = False
    del found.arms[:]
    found.arms.append(arm(4, "running", 1, 0.5, phase="fork"))
    lines = drawn(screen(found), 100, 36)
    assert line(lines, "Fork 4, round 2")
    assert line(lines, " tuned").split()[:3] == ["arm", "for", "state"]
    assert "arm 2: " in line(lines, "best")


def test_the_bar_is_of_what_there_is_least_left_of() -> None:
    found = snapshot()
    del found.spent[:]
    found.spent.extend(
        [spending("rounds", 10, 100), spending("payload_bytes", 9e8, 1e9), spending("seconds", 60, 3600)]
    )
    spent = line(drawn(screen(found), 100, 36), "spent")
    assert " 90%" in spent
    assert "10 of 100 rounds, 900 MB of 1 GB, 60 s of 60 min" in spent


def test_nothing_is_promised_before_the_first_round() -> None:
    found = snapshot()
    found.ClearField("time_left")
    found.ClearField("best")
    lines = drawn(screen(found), 100, 36)
    assert "known after the first round" in line(lines, "left")
    assert "nothing measured yet" in line(lines, "best")


@pytest.mark.parametrize("state", ["stopping", "pausing"])
def test_of_a_study_that_is_to_stop_or_to_pause_the_rounds_under_way_are_left(state: str) -> None:
    found = snapshot()
    found.state = state
    lines = drawn(screen(found), 100, 36)
    assert "the rounds under way" in line(lines, "left")
    del found.phases[:]
    assert not any(f"The study is {state}." in line for line in drawn(screen(found), 100, 36))


def test_what_is_waited_for_is_said() -> None:
    found = snapshot()
    del found.phases[:]
    found.fleet.for_study, found.fleet.connected, found.fleet.working = 3, 3, 0
    lines = drawn(screen(found), 100, 36)
    assert "3 of the 8 that a round needs" in line(lines, "fleet")
    assert line(lines, "Waiting for clients.")


def test_a_round_that_ends_does_not_move_what_is_below() -> None:
    shown = screen(snapshot())
    before = drawn(shown, 100, 36)
    assert shown.snapshot is not None
    del shown.snapshot.phases[:]
    after = drawn(shown, 100, 36)
    assert [line for line in after if line.startswith(" trial")]
    assert [line.startswith(" trial") for line in before] == [line.startswith(" trial") for line in after]


def test_a_coordinator_that_is_away_is_told() -> None:
    shown = screen(snapshot())
    shown.note = "Lost the coordinator at 127.0.0.1:1; waiting for it to come back."
    assert line(drawn(shown, 100, 36), "Lost the coordinator")


def test_before_the_first_snapshot_it_says_what_it_does() -> None:
    assert drawn(screen(None), 60, 24) == ["Asking for study demo…"]


@pytest.mark.parametrize("height", range(1, 14))
def test_a_few_lines_are_enough(height: int) -> None:
    assert 0 < len(drawn(screen(snapshot()), 40, height)) <= height


def test_a_name_or_a_reason_of_any_length_breaks_nothing() -> None:
    found = snapshot(phase(client("名" * 60, pb.WORK_STATE_FAILED, 3, message="x" * 500)))
    found.phases[0].elapsed.FromTimedelta(timedelta(days=3))
    for width, height in SIZES:
        lines = drawn(screen(found), width, height)
        assert len(lines) <= height


def test_what_a_client_says_moves_nothing_on_the_terminal() -> None:
    found = snapshot(phase(client("ann", pb.WORK_STATE_FAILED, 3, message="a\nb\x1b[2Jc")))
    shown = screen(found)
    shown.tell(event(4, "client_failed", "ann: out\x1b[2J of memory."))
    text = "\n".join(drawn(shown, 100, 36))
    assert "\x1b" not in text
    assert "a b" in text


def test_of_a_study_that_is_left_nothing_is_missing() -> None:
    found = snapshot()
    found.state, found.fleet.for_study = "interrupted", 0
    found.ClearField("time_left")
    del found.phases[:]
    lines = drawn(screen(found), 100, 36)
    assert "that a round needs" not in line(lines, "fleet")
    assert line(lines, "The study is interrupted.")


def test_nothing_fails_at_any_size() -> None:
    found = snapshot(phase(*COHORT, trial=3), crowd(140))
    found.arms.extend(arm(number, "pruned", 1, 0.1) for number in range(5, 30))
    found.arm_count = 60
    for height in range(1, 40):
        for width in (20, 40, 79, 81, 200):
            assert len(drawn(screen(found), width, height)) <= height

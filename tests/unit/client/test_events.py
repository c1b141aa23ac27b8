import io
import json
import threading

from fedstep.client.events import ClientEvent, Printer


def test_text_for_people_and_json_for_programs() -> None:
    event = ClientEvent("outcome", "trained 3 steps", {"trial": 2, "loss": 0.5})
    for as_json in (False, True):
        out = io.StringIO()
        printer = Printer(out, as_json)
        printer(event)
        printer.close()
        if as_json:
            assert json.loads(out.getvalue()) == {
                "event": "outcome",
                "text": "trained 3 steps",
                "trial": 2,
                "loss": 0.5,
            }
        else:
            assert out.getvalue() == "trained 3 steps\n"


def test_numbers_that_json_has_no_word_for() -> None:
    out = io.StringIO()
    printer = Printer(out, as_json=True)
    printer(ClientEvent("outcome", "x", {"loss": float("nan")}))
    printer.close()
    assert json.loads(out.getvalue(), parse_constant=lambda name: f"refused {name}")["loss"] is None


def test_a_reader_that_is_stuck_stops_nobody() -> None:
    class Stuck(io.StringIO):
        def __init__(self) -> None:
            super().__init__()
            self.leave = threading.Event()

        def write(self, text: str) -> int:
            self.leave.wait(60)
            return super().write(text)

    out = Stuck()
    printer = Printer(out, as_json=False)
    for number in range(5000):
        printer(ClientEvent("notice", str(number)))  # would hang here
    out.leave.set()
    printer.close()
    assert len(out.getvalue().splitlines()) <= 1002


def test_a_reader_that_has_gone_is_no_error() -> None:
    out = io.StringIO()
    printer = Printer(out, as_json=False)
    out.close()
    printer(ClientEvent("notice", "x"))
    printer.close()

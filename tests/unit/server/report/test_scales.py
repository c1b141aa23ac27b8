from matplotlib.figure import Figure

from fedstep.server.report.scales import ValueRange


def test_accuracies_that_span_much_are_opened_up_towards_one() -> None:
    shown = ValueRange.of([0.3, 0.9, 0.95], [], minimize=False, open_up=True)
    assert shown.to_one
    assert shown.low < 0.3
    assert 0.95 < shown.high < 1
    heights = [shown.height(value) for value in (0.3, 0.9, 0.95)]
    assert 0 < heights[0] < heights[1] < heights[2] < 1
    assert heights[2] - heights[1] > 0.15  # on a linear scale it would be a tenth of that
    axes = Figure().add_axes((0, 0, 1, 1))
    shown.apply(axes, ticks=9)
    pixels = [axes.transAxes.inverted().transform(axes.transData.transform((0, value)))[1] for value in (0.3, 0.9)]
    assert abs(pixels[0] - heights[0]) < 1e-6
    assert abs(pixels[1] - heights[1]) < 1e-6


def test_what_is_no_accuracy_or_spans_little_is_not() -> None:
    for values in ([0.9, 0.92], [0.3, 1.0], [-0.1, 0.9], [3.0, 5.0]):
        assert not ValueRange.of(values, [], minimize=False, open_up=True).to_one
    assert not ValueRange.of([0.3, 0.95], [], minimize=True, open_up=True).to_one
    assert not ValueRange.of([0.3, 0.95], [], minimize=False).to_one

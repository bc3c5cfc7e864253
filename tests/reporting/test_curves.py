from __future__ import annotations

import subprocess
import sys

import pytest

from fedrag.reporting.curve_svg import curve_svg, nice_ticks, place_curve
from fedrag.reporting.curves import curve_plots, curves


def record(number: int, **values: float) -> dict:
    """Return a round with the generator's loss at each site."""
    sites = {site: {"generator.loss": value} for site, value in values.items()}
    return {"round": number, "sites": sites, "validation": {}, "update_norm": {}, "aggregation_error": {}}


def test_a_curve_spans_all_rounds_and_stands_between_its_ticks():
    found = place_curve([(1, 2.0), (2, 1.0)], [[(1, 3.0), (2, 1.0)], [(2, 2.0)]], rounds=3)
    assert [tick.text for tick in found.x_ticks] == ["1", "2", "3"]
    assert [tick.text for tick in found.y_ticks] == ["1", "1.5", "2", "2.5", "3"]
    assert found.line == "54.0,94.0 221.0,176.0"
    assert found.faint == ("54.0,12.0 221.0,176.0",)
    assert [mark.text for mark in found.marks] == ["round 1: 2", "round 2: 1"]
    assert [(mark.x, mark.y) for mark in found.faint_marks] == [(221.0, 94.0)]


def test_a_curve_passes_over_values_that_are_no_numbers():
    nan, inf = float("nan"), float("inf")
    (loss,) = curves([record(1, a=nan), record(2, a=1.0), record(3, a=inf)], ("generator",))
    assert loss.points == [(2, 1.0)]
    assert curves([record(1, a=nan)], ("generator",)) == []


def test_the_loss_is_the_mean_with_the_sites_behind_it():
    (loss,) = curves([record(1, a=2.0, b=4.0), record(2, b=3.0)], ("generator", "retriever"))
    assert (loss.title, loss.points) == ("Training loss of the generator", [(1, 3.0), (2, 3.0)])
    assert loss.faint == [[(1, 2.0)], [(1, 4.0), (2, 3.0)]]
    (alone,) = curves([record(1, a=2.0)], ("generator",))
    assert (alone.caption, alone.faint) == ("One site.", ())


def test_a_plot_tells_its_values_in_words():
    (plot,) = curve_plots([record(1, a=1 / 3)], ("generator",), rounds=2)
    assert plot.alt == "Training loss of the generator by round. round 1: 0.333."
    assert "<title>round 1: 0.3333</title>" in plot.svg


def test_more_points_than_the_line_can_bear_are_not_marked():
    assert curve_svg([(n, 1.0 / n) for n in range(1, 61)], [], 61).count("<circle") == 60
    assert curve_svg([(n, 1.0 / n) for n in range(1, 62)], [], 61).count("<circle") == 0


def test_the_curves_need_neither_torch_nor_matplotlib():
    script = (
        "import sys, fedrag.coordinator.console_page; print([n for n in ('torch', 'matplotlib') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("values", [[0.0], [-5.7, -5.2], [1e-12, 3e-12], [1e9, 1e9], [-1.0, 1.0], [0.1, 0.3]])
def test_ticks_enclose_the_values_and_are_few(values: list[float]):
    ticks = nice_ticks(values, 4)
    assert ticks[0] <= min(values)
    assert ticks[-1] >= max(values)
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 7

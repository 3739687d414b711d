from __future__ import annotations

import html
import struct
import warnings

import matplotlib as mpl
import numpy as np
import pytest

from nasbed.reports.comparison import compare
from nasbed.reports.figures import COLUMN, TEXT, critical_difference, differences, draw_all, looks
from nasbed.reports.frame import load

NAMES = {"anytime", "differences", "distribution", "profile", "ecdf", "incumbents"}


def test_every_figure_comes_in_three_formats(reports):
    found = {p.name for p in (reports.first / "figures").iterdir()}
    assert found == {f"{name}.{kind}" for name in NAMES for kind in ("pdf", "png", "svg")}


def test_pdfs_embed_type_42_and_no_date(reports):
    for path in (reports.first / "figures").glob("*.pdf"):
        data = path.read_bytes()
        assert b"/Type3" not in data
        assert b"/FontFile2" in data
        assert b"CreationDate" not in data


def test_widths_are_those_of_papers(reports):
    for path in (reports.first / "figures").glob("*.png"):
        width, _ = struct.unpack(">II", path.read_bytes()[16:24])
        assert width / 220 in (pytest.approx(COLUMN, abs=0.01), pytest.approx(TEXT, abs=0.01))


def test_svgs_keep_text_as_text(reports):
    svg = (reports.first / "figures" / "anytime.svg").read_text(encoding="utf-8")
    assert "normalised test regret" in svg
    assert html.escape(reports.hostile, quote=False) in svg


def test_drawing_leaves_global_state_alone(make_store):
    comparison = compare(load(make_store(("random", "oracle"), seeds=3)), resamples=200)
    before, state = dict(mpl.rcParams), np.random.get_state()[1].copy()  # noqa: NPY002
    first = differences(comparison)
    assert dict(mpl.rcParams) == before
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert differences(comparison).files == first.files


def test_critical_differences_need_enough_tables(make_store):
    comparison = compare(load(make_store(("random", "oracle"), tables=6, seeds=2)), resamples=200)
    drawing = critical_difference(comparison)
    assert "oracle 1.00" in drawing.alt
    assert b"CD = " in drawing.files["svg"]


def test_methods_differ_in_colour_and_marker_and_the_baseline_is_black(make_store):
    comparison = compare(load(make_store(seeds=2)), resamples=200)
    look = looks(comparison)
    assert look["random"].colour == "#000000"
    assert len({v.colour for v in look.values()}) == len({v.marker for v in look.values()}) == 3


@pytest.mark.parametrize(("seeds", "real"), [(1, False), (2, True)])
def test_the_smallest_studies_are_drawn_without_warnings(make_store, seeds, real):
    comparison = compare(load(make_store(("random", "weak"), seeds=seeds, real=real)), resamples=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(d.files["pdf"].startswith(b"%PDF") for d in draw_all(comparison))

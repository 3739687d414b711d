"""Figures of tables: every number has its place, in files that can be read, of the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon

from nasbed.methods import registry
from nasbed.reports import svg
from nasbed.reports.table_figures import Best, PipelineValues, TableValues, best, distribution, draw_all, write_all

CELLS = registry.space("nb201[ops=none,skip_connect,nor_conv_3x3]")


def pipeline(name: str, root: int, *, perplexity: bool = False) -> PipelineValues:
    rng = np.random.default_rng(root)
    quality = rng.uniform(0.2, 0.9, 60)
    if perplexity:
        quality = np.exp(7 * quality)
        quality[:4] = np.inf
    quality[5] = np.nan
    pairs = np.stack([quality, quality * 1.01], 1)[6:]
    top = tuple(
        Best(CELLS.text(CELLS.at(i)), float(quality[i - 290]), (0.5, 0.6), str(CELLS.draw(CELLS.at(i))))
        for i in range(300, 304)
    )
    return PipelineValues(name, quality, np.exp(rng.normal(20, 1, 60)), pairs, 0.912, top)


def table(p: PipelineValues, metric: str = "accuracy", others: tuple[str, ...] = ()) -> TableValues:
    labels = (p.name, *others)
    matrix = np.full((len(labels), len(labels)), 0.5)
    np.fill_diagonal(matrix, 1.0)
    matrix[0, -1] = matrix[-1, 0] = 1.0 if len(labels) == 1 else np.nan
    return TableValues("toy", metric, metric == "accuracy", "flops", (p,), labels, matrix)


def texts(content: bytes) -> str:
    return " ".join(t for t in ElementTree.fromstring(content.decode()).itertext() if t.strip())


def test_every_figure_is_written_as_png_and_svg(tmp_path: Path) -> None:
    made = table(pipeline("adam", 0), others=("part:x", "part:y"))
    paths = write_all(made, tmp_path / "new")
    names = ["distribution", "seeds", "cost", "correlation", "best_adam", "architectures_adam"]
    assert [p.name for p in paths] == [f"{n}.{kind}" for n in names for kind in ("png", "svg")]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths if p.suffix == ".png")
    found = {p.stem: texts(p.read_bytes()) for p in paths if p.suffix == ".svg"}
    assert all("adam" in found[name] for name in names[:-1])
    assert "Spearman 0.912" in found["seeds"]
    assert (found["correlation"].count("1.00"), found["correlation"].count("0.50")) == (3, 4)  # two are undefined
    assert "validation accuracy (%)" in found["cost"]
    assert "FLOPs" in found["cost"]
    for i in range(4):
        assert made.pipelines[0].best[i].text[:20] in found["best_adam"]
    assert found["architectures_adam"].count("nor_conv_3x3") > 4


def test_what_cannot_be_drawn_is_said() -> None:
    drawn = distribution(table(pipeline("adam", 0, perplexity=True), "perplexity"))
    said = "Not drawn, under some pipeline: 1 architectures without a training or 4 architectures with a diverged"
    assert said in drawn.caption
    assert "%" not in texts(drawn.files["svg"])
    assert {"5", "10", "100", "200"} <= set(texts(drawn.files["svg"]).split())  # a logarithmic axis


def test_what_has_no_numbers_is_not_drawn() -> None:
    alike = table(PipelineValues("p", np.full(9, 0.5), np.ones(9), np.zeros((0, 2)), None, (Best("a", 0.5, ()),)))
    assert [d.name for d in draw_all(alike)] == ["distribution", "best_p"]


def test_the_same_numbers_give_the_same_bytes() -> None:
    made = table(pipeline("adam", 0))
    assert best(made, made.pipelines[0]).files == best(made, made.pipelines[0]).files


def test_drawings_of_spaces_are_painted_whole() -> None:
    for space in ("nb201", "mlp", "darts", "rnn[nodes=4]"):
        found = registry.space(space)
        drawing = str(found.draw(found.sample(np.random.default_rng(0))))
        axes = Figure().add_subplot()
        svg.paint(axes, drawing, 0.5)
        kinds = [type(p) for p in axes.patches]
        assert kinds.count(FancyBboxPatch) == drawing.count("<rect") - 1  # all but the background
        assert kinds.count(PathPatch) == kinds.count(Polygon) == drawing.count("marker-end")
        assert len(axes.texts) == drawing.count("<text")
        width, height = svg.size(drawing)
        assert (axes.get_xlim(), axes.get_ylim()) == ((0, width), (height, 0))
        corners = np.concatenate([p.get_path().vertices for p in axes.patches if isinstance(p, PathPatch)])
        assert corners.min() >= -5
        assert corners[:, 0].max() <= width


def test_what_is_no_simple_drawing_is_left_out() -> None:
    axes = Figure().add_subplot()
    content = '<path d="M0 0"/><circle r="3"/><g><rect x="1" y="2" width="3" height="4"/></g>'
    content += '<defs><path d="M0 0L1 1"/></defs>'
    svg.paint(axes, f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 8">{content}</svg>', 1.0)
    assert len(axes.patches) == 1
    with pytest.raises(ElementTree.ParseError):
        svg.paint(axes, "<svg", 1.0)

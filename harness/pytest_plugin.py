"""The pytest plugin: `nas_gate` holds a strategy to its baseline, `nas_conformance` a method to its contract.

    @pytest.mark.nasbed(table="mlp-digits", budget="50evals")
    def test_climb_is_as_good_as_recorded(nas_gate):
        nas_gate(Climb, baseline="climb.jsonl")

    @pytest.mark.nasbed(strategy=Climb)
    def test_climb_keeps_the_contract(nas_conformance):
        nas_conformance()

It is loaded by every run of pytest where nasbed is installed, so it imports nothing heavy before a test asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .gate_text import Verdict
    from .pytest_checks import Found

NasGate = Callable[..., "Verdict"]

SETTINGS = {
    "table": ("", "tables of a new baseline, comma-separated names or folders"),
    "seeds": ("0-199", "seeds of a new baseline, a count or a range"),
    "budget": ("", "budget of each run of a new baseline, such as 100evals; default: 100 median full trainings"),
    "alpha": ("0.01", "false alarms of the gate over all its tests of a session"),
    "margin": ("0.60", "probability of a worse run that a passing strategy stays below"),
    "looks": ("20,50,100", "fresh seeds per table at each look of the gate"),
    "inconclusive": ("warn", "what a gate without a decision is: warn (an expected failure) or fail"),
}
"""Keywords of the marker and, as nasbed_<name>, options of the ini file: default and help."""

SUBJECTS = ("strategy", "estimator", "space", "params")
"""Keywords of the marker for `nas_conformance`."""

_found = pytest.StashKey[list[dict[str, Any]]]()
_gates = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and ini settings."""
    group = parser.getgroup("nasbed", "neural architecture search: gates and conformance")
    group.addoption("--nasbed-record", action="store_true", help="nas_gate records baselines anew, instead of checking")
    group.addoption("--nasbed-store", metavar="DIR", help="folder of baselines; default: the ini setting nasbed_store")
    group.addoption("--nasbed-json", metavar="FILE", type=Path, help="write what every nas_gate found into this file")
    parser.addini("nasbed_store", "folder of baselines, from the root folder", default="tests/baselines")
    for name, (default, text) in SETTINGS.items():
        parser.addini(f"nasbed_{name}", text, default=default)


def pytest_configure(config: pytest.Config) -> None:
    """The marker, and options that contradict each other."""
    keywords = ", ".join((*SETTINGS, *SUBJECTS))
    config.addinivalue_line("markers", f"nasbed({keywords}): settings of nas_gate, subjects of nas_conformance")
    if not _is_worker(config):
        config.pluginmanager.register(_Summary(config), "nasbed-summary")
        for option in ("--nasbed-store", "--nasbed-json"):
            if option in config.invocation_params.args:
                raise pytest.UsageError(f"{option}: write {option}=..., or pytest takes a path after it for a test")
    if config.getoption("nasbed_record") and (_is_worker(config) or getattr(config.option, "numprocesses", None)):
        raise pytest.UsageError("--nasbed-record: baselines are recorded by one process; add -n 0")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each conformance check of each subject."""
    if "nas_conformance" not in metafunc.fixturenames:
        return
    from .pytest_checks import conformance

    marked: dict[str, Any] = {}
    for mark in reversed(list(metafunc.definition.iter_markers("nasbed"))):
        marked |= mark.kwargs
    try:
        checks = conformance(marked, allowed=(*SUBJECTS, *SETTINGS))
    except ValueError as error:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {error}") from None
    metafunc.parametrize("nas_conformance", [c for _, c in checks], ids=[name for name, _ in checks], indirect=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """How many gates share the level."""
    session.config.stash[_gates] = sum("nas_gate" in getattr(i, "fixturenames", ()) for i in session.items)


@pytest.fixture
def nas_conformance(request: pytest.FixtureRequest) -> Callable[[], None]:
    """One conformance check of the subject that `@pytest.mark.nasbed` names; call it, and it fails the test or not."""

    def check() -> None:
        __tracebackhide__ = True
        from .pytest_checks import fault

        if (text := fault(request.param)) is not None:
            pytest.fail(text, pytrace=False)

    return check


@pytest.fixture
def nas_gate(request: pytest.FixtureRequest) -> NasGate:
    """Call `nas_gate(strategy, baseline="name.jsonl")` once in a test: it fails where the strategy has become worse.

    The strategy is a class, or a name as `nasbed compare` takes it, `my_pkg.mod:MyStrategy[restart=0.2]`. The baseline
    is a file in the folder `--nasbed-store`. The verdict is returned where it is a pass. Without a decision the test is
    an expected failure, or a failure with `inconclusive="fail"`; with `--nasbed-record` it is skipped.
    """
    config, node = request.config, request.node
    found = node.stash.setdefault(_found, [])

    def gate(strategy: str | type, *, baseline: str | Path) -> Verdict:
        __tracebackhide__ = True
        from . import pytest_checks

        if found:
            pytest.fail("nas_gate: one strategy for each test, since the level is shared by tests", pytrace=False)
        path = _store(config) / baseline
        try:
            settings = pytest_checks.read_settings(_settings(config, node), allowed=SUBJECTS)
        except ValueError as error:
            pytest.fail(f"nas_gate: {error}", pytrace=False)
        if config.getoption("nasbed_record"):
            result = pytest_checks.record(strategy, path, settings)
        else:
            result = pytest_checks.check(strategy, path, settings, gates=config.stash[_gates])
        found.append({"test": node.nodeid, "baseline": str(baseline), **result.facts})
        return _told(result)

    return gate


def _told(result: Found) -> Verdict:
    __tracebackhide__ = True
    if result.outcome == "recorded":
        pytest.skip(result.text)
    if result.outcome == "inconclusive":
        pytest.xfail(result.text.splitlines()[0])
    if result.verdict is None or result.outcome != "pass":
        pytest.fail(result.text, pytrace=False)
    return result.verdict


def _settings(config: pytest.Config, node: pytest.Item) -> dict[str, Any]:
    """Of the ini file, then of markers, the closest last."""
    found = {name: config.getini(f"nasbed_{name}") for name in SETTINGS}
    for mark in reversed(list(node.iter_markers("nasbed"))):
        found |= mark.kwargs
    return found


def _store(config: pytest.Config) -> Path:
    """From the command line, relative to where pytest was called; from the ini file, to the root folder."""
    given = config.getoption("nasbed_store")
    if given:
        return config.invocation_params.dir / str(given)
    return config.rootpath / str(config.getini("nasbed_store"))


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


# What was found travels with the reports, which xdist brings from its workers to the process that writes.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send what the gate found along with the report of the phase in which it was called."""
    report = yield
    if found := item.stash.get(_found, None):
        report.__dict__["nasbed"] = list(found)
        item.stash[_found] = []
    return report


class _Summary:
    """What all gates of a session found, said and written where the session is controlled."""

    def __init__(self, config: pytest.Config) -> None:
        file: Path | None = config.getoption("nasbed_json")
        self._file = file and config.invocation_params.dir / file
        self._found: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._found += getattr(report, "nasbed", ())

    def pytest_sessionfinish(self) -> None:
        if self._file is not None:
            self._found.sort(key=lambda f: str(f["test"]))  # tests end in any order under xdist
            text = json.dumps({"gates": self._found}, indent=1, sort_keys=True, ensure_ascii=False)
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(text + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._found:
            return
        terminalreporter.section("nasbed")
        for found in sorted(self._found, key=lambda f: str(f["test"])):
            terminalreporter.line(found["test"])
            for line in found["summary"]:
                terminalreporter.line(f"  {line}")
        if self._file is not None:
            terminalreporter.line(f"gates: {self._file}")

"""What the documentation says, tried out: commands, code, examples, links, numbers."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from nasbed.harness.cli import app
from nasbed.harness.compare import carry_out
from nasbed.harness.plan import plan
from nasbed.harness.store import RunStore
from nasbed.harness.study import read_study
from nasbed.methods import registry, strategies
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.protocols import Observation
from nasbed.tabular import embedded, open_table, write_synthetic_table

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXTS = (".py", ".md", ".toml", ".ini", ".in", ".j2", ".css", ".js", ".json")


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands() -> list[tuple[str, str]]:
    """Every nasbed command in shell blocks, in code within lines, and in the examples' comments."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        prose = FENCE.sub("", text)
        lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
        lines += [re.sub(r"\s+", " ", code) for code in re.findall(r"`(nasbed [a-z][^`]*)`", prose)]
        found += [(page.name, line) for line in lines]
    for example in sorted((ROOT / "examples").iterdir()):
        if example.is_file():
            found += [(example.name, line) for line in re.findall(r"(nasbed [a-z].*)", example.read_text())]
    parts = [(where, part.partition(" #")[0].strip()) for where, line in found for part in line.split("&&")]
    parts = [(where, re.split(r"\s{2,}", part)[0]) for where, part in parts]
    return sorted({(where, part) for where, part in parts if part.startswith("nasbed ")})


@pytest.mark.parametrize(("where", "line"), commands())
def test_commands_exist(where, line):
    """Parsed by the program itself: verbs, flags, types and required arguments; nothing is run."""
    command, arguments = typer.main.get_command(app), shlex.split(line)[1:]
    context = command.make_context("nasbed", list(arguments), resilient_parsing=True)
    bare = True
    while hasattr(command, "commands"):
        if not arguments or arguments[0].startswith("-"):
            break
        name, *arguments = arguments
        assert name in command.commands, f"{where}: {line}: there is no {name!r}"
        command, bare = command.commands[name], not arguments
        if not bare and not hasattr(command, "commands"):
            command.make_context(name, list(arguments), parent=context)
    if arguments and getattr(command, "invoke_without_command", False):  # a verb of its own, and a group of others
        command.make_context("audit", list(arguments), parent=context)
        bare = True
    # `nasbed compare` in prose names a verb; `nasbed --help` is there for every one.
    assert bare or not hasattr(command, "commands") or arguments == ["--help"], f"{where}: {line}"


def test_commands_are_found():
    found = {line for _, line in commands()}
    assert "nasbed compare --strategies random,local_search,aging_evolution --table mlp-digits" in found
    assert len(found) > 15


def test_the_two_commands_of_the_readme():
    """Each is one line; .ci/run extracts the second one, so it can never run anything else."""
    lines = [line for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    installs = [line for line in lines if line.startswith("python -m pip install")]
    assert installs == [
        "python -m pip install . && nasbed compare --strategies random,local_search,aging_evolution --table mlp-digits",
        'python -m pip install -e ".[test]" && python -m pytest',
    ]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"grep -E '([^']+)' README.md", script)
    found = subprocess.run(["grep", "-E", pattern, "README.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == installs[1:]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_the_study_of_the_examples_is_valid(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    planned = plan(read_study(ROOT / "examples" / "study.toml", {}))
    assert len(planned.study.strategies) == 5
    assert len({r.key for r in planned.runs}) == len(planned.runs) == 5 * 30


def test_the_examples_run(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "examples")
    given = {"seeds": "2", "budget": "30evals"}
    planned = plan(read_study(ROOT / "examples" / "study.toml", given))
    assert carry_out(planned, tmp_path) == []
    store = RunStore(tmp_path / "store")
    assert len(store.finished()) == 10
    assert {r.strategy for r in planned.runs if r.key in store.finished()} >= {"random", "my strategy"}


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    """A folder on the Python path, current, with a small table in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    write_synthetic_table(tmp_path / "small", Synthetic(genes=3, values=3), seeds=2, epochs=4)
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("nasbed.") or name.endswith(".annealing"):
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(tmp_path):
                del sys.modules[name]


def compared(folder: Path, **given: object) -> None:
    planned = plan(read_study(None, {"tables": "small", "seeds": "2", "budget": "10evals", **given}))
    assert carry_out(planned, folder / "out") == []
    store = RunStore(folder / "out" / "store")
    for run in planned.runs:
        calls = store.load(run.key).calls
        assert sum(len(c.observations) for c in calls) == 10
        assert {o.status for c in calls for o in c.observations} == {"ok"}


def test_the_strategy_of_the_contributing_guide(world, monkeypatch):
    """One file in the folder of strategies, and it is registered, checked and compared."""
    (code,) = blocks(ROOT / "CONTRIBUTING.md", "python")
    assert code.startswith("# methods/strategies/annealing.py\n")
    home = world / "strategies"
    home.mkdir()
    (home / "annealing.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(home)])
    assert "annealing" in registry.names("strategies")
    check(registry.load("strategies", "annealing"))
    compared(world, strategies="annealing[cooling=0.9],annealing")


def check(strategy_class: type) -> None:
    """It keeps the contract, and it learns: it finds the one best of 15,625, as random search would in 15,625 steps."""
    from nasbed.harness.checks import check_strategy

    space = Synthetic(genes=6, values=5)
    search, best = strategy_class(space, seed=0), 0.0
    for _ in range(500):
        [proposal] = search.ask()
        best = max(best, score := space.truth(proposal.architecture))
        search.tell([Observation(proposal, score)])
    assert best == space.truth(space.optimum())
    results = check_strategy(strategy_class)
    assert [f"{r.name}: {r.detail}" for r in results if r.passed is False] == []
    assert sum(r.passed is True for r in results) > 3


def test_the_strategy_of_the_readme(world):
    (code,) = blocks(ROOT / "README.md", "python")
    (world / "climb.py").write_text(code, encoding="utf-8")
    check(registry.load("strategies", "climb:Climb"))
    compared(world, strategies="climb:Climb")


def test_the_strategy_of_the_examples(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    check(registry.load("strategies", "my_strategy:MyStrategy"))


def test_the_code_of_extending(world):
    """Each block names its file in its first line."""
    for code in blocks(ROOT / "docs" / "extending.md", "python"):
        name = re.match(r"# (\w+\.py)\n", code)[1]
        (world / name).write_text(code, encoding="utf-8")
    compared(world, strategies="random", estimators="width_sum:width_sum,tail_mean:TailMean[epochs=2]")
    subprocess.run([sys.executable, "my_table.py"], cwd=world, check=True, timeout=60)
    table = open_table(world / "my-table", verify=True)
    assert (table.coverage, table.clock, table.median_cost("mine")) == ("complete", "seconds", 12.5)
    compared(world, strategies="local_search", tables="my-table")
    from nasbed.harness.checks import check_space

    results = check_space(registry.space("plain:Plain"))
    assert [f"{r.name}: {r.detail}" for r in results if r.passed is False] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_data_sheets_are_those_of_the_tables():
    made = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))
    page = "\n".join([made["HEAD"], *(made["sheet"](open_table(name)) for name in embedded())])
    assert page == (ROOT / "docs" / "tables.md").read_text(encoding="utf-8"), "run: python docs/make_tables.py"


def test_nothing_of_one_machine_is_in_the_repository():
    """No absolute path of somebody's computer, no private package index."""
    forbidden = re.compile(r"(?<![\w.~-])/(?:root|home|tmp|work)(?:/|\b)|(?:extra-)?index[-_]url")
    folders = [*(ROOT / f for f in ("protocols", "methods", "tabular", "harness", "reports")), ROOT / "tests"]
    folders += [ROOT / "docs", ROOT / "examples", ROOT / ".ci"]
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    files += [p for p in ROOT.iterdir() if p.is_file()]
    found = []
    for path in files:
        if path.suffix in TEXTS or path.name in ("run", "LICENSE", ".gitignore"):
            text = path.read_text(encoding="utf-8")
            lines = enumerate(text.splitlines(), start=1)
            found += [f"{path.relative_to(ROOT)}:{i}: {line.strip()}" for i, line in lines if forbidden.search(line)]
    assert not [f for f in found if not f.startswith("tests/test_docs.py")], "\n".join(found)


def test_the_page_of_estimators_is_that_of_the_estimates():
    made = runpy.run_path(str(ROOT / "docs" / "make_estimators.py"))
    assert (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8") == made["page"]()

"""The report in a real browser: nothing requested, nothing refused, everything visible."""

from __future__ import annotations

import functools
import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nasbed.harness.compare import carry_out
from nasbed.harness.plan import plan
from nasbed.harness.study import read_study
from nasbed.methods.spaces.synthetic import Synthetic
from nasbed.reports.write import write_report
from nasbed.tabular import write_synthetic_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")

HOSTILE = """<script>document.title='x'</script> "quoted" & 'single' </h1>"""
LABEL = 'ev<img src=x onerror=alert(1)>"o\\'

PROBE = """<script>
window.onload = () => {
  const seen = (e) => {
    const r = e.getBoundingClientRect();
    return {width: r.width, height: r.height, right: r.right, shown: e.checkVisibility()};
  };
  const found = {
    figures: [...document.querySelectorAll("figure.drawing")].map((f) => [f.id, seen(f.querySelector("svg"))]),
    marks: [...document.querySelectorAll("figure.drawing svg")].map((s) => {
      const r = s.getBoundingClientRect();
      return [...s.querySelectorAll("path, use, text")].filter((e) => {
        const b = e.getBoundingClientRect();
        return b.right > r.left && b.left < r.right && b.bottom > r.top && b.top < r.bottom;
      }).length;
    }),
    tables: [...document.querySelectorAll("figure.table table")].map(seen),
    page: [document.documentElement.scrollWidth, document.documentElement.clientWidth],
    scripts: document.querySelectorAll("script").length,
    images: document.querySelectorAll("img").length,
    heading: document.querySelector("h1").textContent,
    title: document.title,
    rows: [...document.querySelectorAll("#table-results tbody th")].map((e) => e.textContent),
    broken: [...document.querySelectorAll('a[href^="#"]')].filter(
      (a) => !document.getElementById(a.getAttribute("href").slice(1))).length,
    links: document.querySelectorAll('a[href^="#"]').length,
  };
  const pre = document.createElement("pre");
  pre.id = "probe";
  pre.textContent = JSON.stringify(found);
  document.body.append(pre);
};
</script>"""


class Asked(SimpleHTTPRequestHandler):
    """Serves a folder and writes down every request."""

    asked: list[str]

    def log_message(self, format: str, *args: Any) -> None:
        self.asked.append(self.path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report under hostile names, and a copy of it with a probe."""
    folder = tmp_path_factory.mktemp("site")
    write_synthetic_table(folder / "toy", Synthetic(genes=4, values=4, world=1))
    strategies = [{"name": "random"}, {"name": "aging_evolution", "label": LABEL}, {"name": "local_search"}]
    given = {"strategies": strategies, "tables": [str(folder / "toy")], "seeds": 6, "budget": "40evals",
             "name": HOSTILE, "resamples": 500}  # fmt: skip
    assert carry_out(plan(read_study(None, given)), folder) == []
    page = write_report(folder / "store", folder / "report").read_text()
    # The policy of the page forbids foreign scripts; the copy goes without one, and is otherwise the same.
    copy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert copy != page
    assert page.count("</body>") == 1
    (folder / "report" / "probe.html").write_text(copy.replace("</body>", PROBE + "</body>"))
    # The policy at work: a page that breaks it in two ways.
    guilty = '<script>document.title = "foreign"</script><img src="http://127.0.0.1:9/x.png"></body>'
    (folder / "report" / "guilty.html").write_text(page.replace("</body>", guilty))
    return folder / "report"


@pytest.fixture
def served(site: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of the folder, and the requests made so far."""
    handler = type("Handler", (Asked,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


def browse(url: str, profile: Path, *flags: str) -> tuple[str, str]:
    """Open a page; the DOM after loading, and what the console and the network said."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
         "--disable-dev-shm-usage", f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0",
         "--virtual-time-budget=5000", *flags, "--dump-dom", url],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_the_report_opens_without_a_complaint_and_asks_for_nothing(served, tmp_path):
    address, asked = served
    dom, console = browse(f"{address}/report.html", tmp_path)
    assert "</html>" in dom
    assert console == ""
    assert asked == ["/report.html"]


def test_a_violation_would_be_seen(served, tmp_path):
    address, asked = served
    dom, console = browse(f"{address}/guilty.html", tmp_path)
    assert console.count("Content Security Policy") >= 2
    assert "<title>foreign" not in dom
    assert asked == ["/guilty.html"]


def test_everything_is_visible(served, tmp_path):
    address, _ = served
    for width in (1280, 390):
        dom, console = browse(f"{address}/probe.html", tmp_path / str(width), f"--window-size={width},900")
        assert console == ""
        match = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)
        assert match
        found = json.loads(html.unescape(match[1]))
        assert len(found["figures"]) >= 5
        for name, box in found["figures"]:
            assert box["shown"], name
            assert box["width"] > 200, name
            assert box["height"] > 50, name
        assert min(found["marks"]) > 20
        assert all(t["width"] > 100 and t["height"] > 20 for t in found["tables"])
        assert found["page"][0] <= found["page"][1], f"the page is wider than a window of {width} pixels"
        assert found["links"] > 10
        assert found["broken"] == 0
        # What a user named is text and nothing else.
        assert found["heading"] == HOSTILE
        assert found["title"] == f"{HOSTILE}: comparison"
        assert LABEL in found["rows"]
        assert found["images"] == 0
        assert found["scripts"] == 3  # numbers, sorting, and the probe

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import pytest

from nasbed.reports.comparison import compare
from nasbed.reports.frame import load


class Page(HTMLParser):
    """Every tag with its attributes, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.inner = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.inner.append((self.tags[-1][1], data))


@pytest.fixture(scope="module")
def text(reports):
    return (reports.first / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_nothing_is_requested_from_anywhere(page, text):
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attrs.get(name, "#")
            assert value.startswith(("#", "data:")), (tag, value)
    assert not re.search(r"url\((?!#)|@import", text)


def test_only_the_sorter_may_run(page):
    (policy,) = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    scripts = [(a, data) for a, data in page.inner if data.strip()]
    (code,) = [data for a, data in scripts if "type" not in a]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    (numbers,) = [data for a, data in scripts if a.get("type") == "application/json"]
    assert json.loads(numbers)["study"] == "guidance_test"


def test_ids_are_unique_and_every_link_arrives(page):
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        if attrs.get("href", "").startswith("#"):
            assert attrs["href"][1:] in ids
        for group in attrs.get("data-runs", "").split():
            assert group in ids


def test_user_text_is_escaped(reports, text):
    assert "weak <b>" not in text
    assert html.escape(reports.hostile, quote=False) in text
    assert "<b>no</b> luck" not in text
    assert "&lt;b&gt;no&lt;/b&gt; luck" in text


def test_figures_have_words_for_those_who_cannot_see_them(page):
    drawn = [a for t, a in page.tags if t == "svg"]
    assert len(drawn) == 6
    assert all(a["role"] == "img" and len(a["aria-label"]) > 60 for a in drawn)


def test_verdicts_come_first_and_failures_are_shown(text):
    order = [text.index(f'<section id="{name}">') for name in ("verdicts", "protocol", "results", "runs")]
    assert order == sorted(order)
    assert "oracle reaches a lower" in text[order[0] : order[1]]
    assert "1 of 6 runs of" in text[order[0] : order[1]]
    assert "5/6" in text
    assert "Without a result" in text


def test_every_run_key_is_listed(reports, text):
    assert all(key in text for key in reports.store.runs)


def test_notebooks_get_the_verdicts(make_store):
    shown = compare(load(make_store(("random", "oracle"), seeds=5)), resamples=200)._repr_html_()
    assert "random" in shown
    assert "<table>" in shown
    assert "Warnings" in shown

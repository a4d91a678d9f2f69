"""The report: complete, escaped, the same bytes in every process, and good in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, browser, executable
from click.testing import CliRunner
from published import HOSTILE, published
from sklearn.metrics import confusion_matrix

from runner.cli.app import cli
from runner.results.confusion import calibrated, confusion, worst
from runner.results.profile_results import ProfileResults, gather
from runner.results.report.page import html
from runner.tasks.data import Examples, Task

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "input", "br", "img"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def profile_results(project: Path) -> ProfileResults:
    return gather(project / "results")[0]


@pytest.fixture(scope="module")
def page(profile_results: ProfileResults) -> str:
    return html([profile_results]).decode()


class Seen(HTMLParser):
    """What a page is made of: tags, attributes, ids, text; complains where tags are not nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.tags for key, value in attributes.items() if key == name]


# What is on the page -------------------------------------------------------------------------------------------------


def test_hostile_sentences_and_titles_are_text(page: str) -> None:
    seen = Seen(page)
    tags = [tag for tag, _ in seen.tags]
    assert tags.count("script") == tags.count("style") == 1
    assert not {"img", "iframe", "object", "b:feeling"} & set(tags)
    assert not [key for _, attributes in seen.tags for key in attributes if key.startswith("on")]
    text = "".join(seen.text)
    assert "</script><script>document.title='owned'</script>" in text
    assert "<b>Feeling</b> & $x_1$" in text
    assert "{{ 7*7 }}" in text
    assert "\u202e" not in page


def test_nothing_is_fetched_and_every_link_has_its_target(page: str) -> None:
    seen = Seen(page)
    ids = seen.values("id")
    assert len(ids) == len(set(ids))
    for link in seen.values("href"):
        assert link in ("#", "data:,") or link.removeprefix("#") in ids
    assert not seen.values("src")
    assert "url(" not in page and "@import" not in page
    assert set(seen.values("aria-labelledby")) <= set(ids)


def test_every_node_has_its_page(page: str, profile_results: ProfileResults) -> None:
    for id, node in profile_results.nodes.items():
        article = page.partition(f'<article class="page" id="demo-{id}"')[2].partition("</article>")[0]
        assert node.what in article.replace("&#39;", "'")
        for column, value in node.shown()["dev"].items():
            low, high = profile_results.interval(id, column) or (0, 0)
            assert f"{value:.3f}" in article and f"{low:.3f}\u2013{high:.3f}" in article
        assert "dev, apparent" in article and f"{node.scores['dev']['overall']:.3f}" in article
        assert "mtrun build specs/" in article or "mtrun build " in article
        assert ("Learning curves" in article) == (node.kind == "leaf")
        assert "Worst 5" in article


def test_a_spec_is_shown_with_its_places(page: str, project: Path) -> None:
    profile = (project / "specs" / "profiles" / "demo.toml").read_text().splitlines()
    assert re.search(r"combiner = &#34;pcgrad&#34; +# .*specs/pcgrad.toml:3", page)
    assert re.search(rf"lr = 0.001 +# .*specs/profiles/demo.toml:{profile.index('lr = 1e-3') + 1}\n", page)


def test_without_sentences_there_are_none(profile_results: ProfileResults) -> None:
    page = html([profile_results], sentences=False).decode()
    assert "owned" not in page and "example.org" not in page
    assert "Mistakes on dev" in page


def test_the_same_bytes_in_every_process(project: Path) -> None:
    code = ("import sys; from pathlib import Path; from runner.results.profile_results import gather; "
            "from runner.results.report.page import html; "
            "sys.stdout.buffer.write(html(gather(Path(sys.argv[1])))); assert 'torch' not in sys.modules")
    said = [subprocess.run([sys.executable, "-c", code, str(project / "results")], cwd=ROOT, capture_output=True,
                           check=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in "12"]
    assert said[0] == said[1]
    assert said[0].endswith(b"</html>")


def test_a_page_is_small(page: str, profile_results: ProfileResults) -> None:
    articles = page.partition("<article")[2]
    assert len(articles) / len(profile_results.nodes) < 25_000  # of a hundred runs 2.5 MB


def test_without_registry_and_specs_there_is_less_on_it(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "results", tmp_path / "results")
    done = CliRunner().invoke(cli, ["report", str(tmp_path / "results")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "results" / "report.html").read_text()
    Seen(page)
    assert "4 of 4 runs are not in the registry" in page
    assert "Learning curves" not in page and "Mistakes" not in page
    assert page.count("<article") == 6 + 1


def test_a_run_that_no_spec_gives_any_more_shows_what_it_was_made_of(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "moved")
    (tmp_path / "moved" / "specs" / "pcgrad.toml").write_text('kind = "model"\nextends = "sum.toml"\n')
    (tmp_path / "moved" / "specs" / "both.toml").unlink()
    page = html(gather(tmp_path / "moved" / "results")).decode()
    assert "no longer give this run" in page
    assert "&#34;type&#34;: &#34;pcgrad&#34;" in page


def test_a_spec_that_cannot_be_planned_takes_nothing_from_the_others(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "moved")
    specs = tmp_path / "moved" / "specs"
    (specs / "more").mkdir()
    (specs / "more" / "sum.toml").write_text('kind = "model"\nextends = "../sum.toml"\n[train]\nseed = 3\n')
    (specs / "pcgrad.toml").write_text("kind = ")
    page = html(gather(tmp_path / "moved" / "results")).decode()
    assert re.search(r"mtrun build \S*specs/sum.toml", page)
    assert not re.search(r"mtrun build \S*specs/(both|pcgrad).toml", page)


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classification", "binary"])
def test_confusion_is_scikit_learns(kind: str) -> None:
    draw, classes = np.random.default_rng(1), 4 if kind == "classification" else 2
    task = Task(title="T", kind=kind, classes=classes)
    scores = draw.normal(size=(200, task.outputs)).astype(np.float32)
    labels = draw.integers(classes, size=200).astype(float)
    said = scores.argmax(axis=1) if kind == "classification" else scores[:, 0] > 0
    found = confusion(task, scores, labels)
    assert found.counts.tolist() == confusion_matrix(labels, said, labels=range(classes)).tolist()
    assert len(found.names) == classes


def test_a_regression_is_rounded_after_the_line_of_least_squares() -> None:
    draw, task = np.random.default_rng(2), Task(title="T", kind="regression", high=5.0)
    labels = draw.uniform(0, 5, size=300)
    scores = (labels[:, None] * -0.2 + draw.normal(size=(300, 1)) * 0.1).astype(np.float32)
    line = np.polyval(np.polyfit(scores[:, 0].astype(float), labels, 1), scores[:, 0].astype(float))
    np.testing.assert_allclose(calibrated(scores, labels), line, rtol=1e-9)
    expected = confusion_matrix(np.rint(labels), np.clip(np.rint(line), 0, 5), labels=range(6))
    assert confusion(task, scores, labels).counts.tolist() == expected.tolist()
    assert confusion(task, scores, labels).names == ("0", "1", "2", "3", "4", "5")


def test_constant_scores_say_the_mean() -> None:
    assert calibrated(np.ones((3, 1), np.float32), np.array([1.0, 2.0, 6.0])).tolist() == [3.0, 3.0, 3.0]


def test_the_worst_are_the_surest_of_the_wrong() -> None:
    task = Task(title="T", kind="classification", classes=3)
    logits = np.log(np.array([[.7, .2, .1], [.1, .8, .1], [.2, .1, .7], [.5, .4, .1], [.7, .2, .1]], np.float32))
    examples = Examples(tuple("abcde"), tuple("ABCDE"), (), np.array([0.0, 0.0, 0.0, 1.0, 2.0]))
    found = list(worst(task, logits, examples, 3))
    assert [(m.id, m.label, m.predicted) for m in found] == [("b", "0", "1"), ("e", "2", "0"), ("c", "0", "2")]
    assert [m.size for m in found] == pytest.approx([0.7, 0.6, 0.5], abs=1e-6)
    assert [m.id for m in worst(task, logits, examples, 9)] == ["b", "e", "c", "d"]


# In a browser --------------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(executable() is None, reason="no Chromium (Debian: chromium-headless-shell)")


@pytest.fixture(scope="module")
def tab(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, str]]:
    folder = tmp_path_factory.mktemp("browser")
    (folder / "report.html").write_text(page)
    with browser(folder / "profile") as tab:
        yield tab, (folder / "report.html").as_uri()
        assert tab.complaints() == []
        assert tab.requests() == []


NAMES = ("[...document.querySelectorAll('.leaderboard tbody tr')].filter(row => !row.hidden)"
         ".map(row => row.cells[0].querySelector('a').innerText)")


def click(tab: Browser, heading: int) -> list[str]:
    """Click on a heading of the leaderboard and return the names of its rows."""
    tab.do(f"document.querySelectorAll('.leaderboard thead button')[{heading}].click()")
    return list(tab.do(NAMES))


@needs_browser
def test_headings_sort(tab: tuple[Browser, str], profile_results: ProfileResults) -> None:
    tab[0].open(tab[1])
    nodes = {node.name: node.shown()["dev"] for node in profile_results.nodes.values()}
    names = click(tab[0], 0)
    assert names == sorted(names)
    assert click(tab[0], 0) == names[::-1]
    for column, task in enumerate(("overall", "sentiment", "similarity"), 1):
        falling = [nodes[name][task] for name in click(tab[0], column)]
        assert falling == sorted(falling, reverse=True)
        assert tab[0].do("document.querySelectorAll('[aria-sort]').length") == 1
        rising = [nodes[name][task] for name in click(tab[0], column)]
        assert rising == sorted(rising)


@needs_browser
def test_filters(tab: tuple[Browser, str]) -> None:
    tab[0].open(tab[1])
    write = ("(text => {{ const box = document.querySelector('input[type=search]'); box.value = text; "
             "box.dispatchEvent(new Event('input', {{bubbles: true}})); }})('{}')")
    tab[0].do(write.format("RATES cosine"))
    assert {name.partition("@")[0] for name in tab[0].do(NAMES)} == {"sum", "rates"}
    assert tab[0].do("document.querySelector('output').innerText") == "3 of 7"
    tab[0].do(write.format(""))
    tab[0].do("(kind => { kind.value = 'ensemble'; kind.dispatchEvent(new Event('input', {bubbles: true})); })"
              "(document.querySelector('.controls select'))")
    assert set(tab[0].do(NAMES)) == {"both", "top", "way"}
    shown = "[...document.querySelectorAll('.leaderboard thead th')].filter(th => th.offsetWidth).length"
    before = tab[0].do(shown)
    tab[0].do("document.querySelector('input[value=test]').click()")
    assert tab[0].do(shown) == before - 3


@needs_browser
def test_a_node_is_a_page_of_its_own(tab: tuple[Browser, str]) -> None:
    tab[0].open(tab[1])
    assert tab[0].do("[...document.querySelectorAll('article')].filter(a => a.offsetHeight).length") == 0
    tab[0].do("document.querySelector('.tree a').click()")
    tab[0].do("new Promise(requestAnimationFrame)")
    assert tab[0].do("[...document.querySelectorAll('article')].filter(a => a.offsetHeight).length") == 1
    assert tab[0].do("document.querySelector('.home').offsetHeight") == 0
    assert tab[0].do("document.title") == "both · mtrun report"
    assert tab[0].do("document.activeElement.tagName") == "H1"


@needs_browser
def test_looks(tab: tuple[Browser, str]) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    tab[0].open(tab[1], dark=True)
    dark = tab[0].do(paper)
    tab[0].do("document.getElementById('theme').click()")
    light = tab[0].do(paper)
    tab[0].open(tab[1])
    assert tab[0].do(paper) == light != dark
    tab[0].do("document.getElementById('theme').click()")
    assert tab[0].do(paper) == dark


@needs_browser
def test_a_phone_scrolls_down_only(tab: tuple[Browser, str], profile_results: ProfileResults) -> None:
    for anchor in ["", *(f"#demo-{id}" for id in profile_results.nodes)]:
        tab[0].open(tab[1] + anchor, width=390, height=844)
        tab[0].do("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert tab[0].do("document.documentElement.scrollWidth") == 390
    tab[0].open(tab[1], width=390, height=844)
    assert tab[0].do("document.querySelector('.leaderboard').dataset.split") == "dev"


@needs_browser
def test_hostile_sentences_do_nothing(tab: tuple[Browser, str]) -> None:
    tab[0].open(tab[1])
    assert tab[0].do("document.title") == "mtrun report"
    quoted = tab[0].do("[...document.querySelectorAll('q')].map(q => q.textContent).join()")
    assert HOSTILE[0] in quoted and HOSTILE[1] in quoted

"""Coloured tokens in the terminal, HTML and SVG, and the pages made of them: nothing lost, nothing loaded, all legible."""

from __future__ import annotations

import io
import itertools
import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from ultrafuser.analyse.charts import LossCurve, loss_chart, smoothed, value_axis
from ultrafuser.analyse.colors import blend, tokens_html, tokens_rich
from ultrafuser.analyse.inspect import inspect_html, inspect_prompt, show_trace, specialist_names
from ultrafuser.analyse.picture import tokens_svg
from ultrafuser.analyse.report import ReportData, render_report, write_report
from ultrafuser.analyse.trace import END_MARK, TokenTrace
from ultrafuser.errors import UserError
from ultrafuser.evaluate.table import ScoreTable
from ultrafuser.intervals import wilson
from ultrafuser.pages.palette import INK, PALETTE, color

NAMES = ["text", "code", "math"]
NASTY = [
    "<script>",
    "alert(1)",
    "</script>",
    " a&b",
    "\n",
    "\n    x",
    '"',
    "\t'",
    "\x1b[31m",
    "\ud800",
    "",
    "🙂",
    "{{ 7 }}",
    " 日本",
]


def trace(tokens=NASTY, domain="text", prompt="<b>Who</b> & why?\n\x07", labels=None):
    rng = np.random.default_rng(0)
    return TokenTrace(domain, prompt, list(tokens), rng.dirichlet([1, 1, 1], len(tokens)).astype(np.float32), labels)


class Page(HTMLParser):
    """Collects the texts of the spans of class t, all tags with their attributes, and that every tag is closed."""

    VOID = ("meta", "link", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tokens = [], [], []
        self.depth = 99  # of the span that is open
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "span" and "t" in (dict(attrs).get("class") or "").split():
            self.tokens.append("")
            self.depth = len(self.open)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.depth = 99 if len(self.open) == self.depth else self.depth
        assert self.open.pop() == tag

    def handle_data(self, data):
        if len(self.open) >= self.depth:
            self.tokens[-1] += data


def shown(tokens):
    """What a reader should see of the tokens: no control characters, tabs as spaces, a mark at line breaks."""
    text = "".join(tokens).replace("\t", "    ").replace("\n", "↵\n")
    return re.sub("[\x00-\x09\x0b-\x1f\ud800]", "\ufffd", text)


def luminance(shade):
    """Of ``#rrggbb``, as WCAG 2 defines it."""
    coded = [int(shade[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in coded)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first, second):
    """WCAG's contrast ratio, 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_colours_are_legible_and_blend_in_proportion():
    """Ink on any mix has at least 7:1 (WCAG AAA); one specialist alone has its own colour; equal weights none of them."""
    rng = np.random.default_rng(0)
    assert len(set(PALETTE)) == 8
    for weights in rng.dirichlet([0.3] * 8, 300):
        assert contrast(blend(weights), INK) >= 7
    assert [blend(row) for row in np.eye(8)] == list(PALETTE)
    assert blend([1.0, 1.0]) == blend([0.5, 0.5]) not in PALETTE
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert color(8) == color(0)


def test_html_tokens():
    """Markup in tokens stays text, spaces and breaks survive, and every token carries its weights."""
    own = trace()
    page = Page(tokens_html(own, NAMES))
    assert "".join(page.tokens) == shown(NASTY)
    assert len(page.tokens) == len(NASTY) - 1  # the empty one, half a character, has no box
    titles = [attributes["title"] for _, attributes in page.tags if "title" in attributes]
    assert titles[0] == " · ".join(f"{name} {100 * weight:.0f}%" for name, weight in zip(NAMES, own.weights[0], strict=True))
    with pytest.raises(ValueError, match="2 names"):
        tokens_html(own, NAMES[:2])


def test_html_marks_wrong_tokens():
    """A token judged wrong is marked and says what it belongs to; right and unjudged ones are not."""
    own = trace(["a", "b", "c"], labels=["code", "math"])
    found = tokens_html(own, NAMES, marks=[False, True, None])
    assert re.findall(r'class="([^"]+)"', found) == ["t miss", "t", "t"]
    assert found.count(" · label ") == 2 and "label code" in found


def test_terminal_tokens():
    """No escape sequence of the answer's reaches the terminal; every visible character has its colour."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=200)
    console.print(tokens_rich(trace(), NAMES))
    text = console.file.getvalue()
    assert "\x1b[31m" not in text
    assert re.sub("\x1b\\[[0-9;]*m", "", text).rstrip("\n") == shown(NASTY)
    assert all(line.startswith("\x1b[38;2;16;19;26;48;2") for line in text.splitlines())


def test_svg():
    """Well-formed, within its frame, no overlaps, and no character of prompt or answer lost but leading spaces of a line."""
    long = trace(["word"] + [" word"] * 40 + ["x" * 70, "漢" * 70], prompt="many words " * 20 + "語" * 70)
    root = ElementTree.fromstring(tokens_svg([trace(), long], NAMES, columns=60))
    space = "{http://www.w3.org/2000/svg}"
    across, down = float(root.get("width")), float(root.get("height"))
    boxes = [group.find(f"{space}rect") for group in root.iter(f"{space}g")]
    spots = sorted((float(box.get("y")), float(box.get("x")), float(box.get("width"))) for box in boxes)
    for (y, x, width), (next_y, next_x, _) in itertools.pairwise(spots):
        assert x + width <= across - 20 and y + 22 <= down
        assert next_y > y or next_x >= x + width
    texts = [text.text for text in root.iter(f"{space}text") if text.get("class") == "token"]
    expected = shown(NASTY) + shown(long.tokens)
    assert "".join("".join(texts).split()) == "".join(expected.split())
    prompts = [text for text in root.iter(f"{space}text") if text.get("class") == "prompt"]
    assert len({text.get("y") for text in prompts}) >= 8
    assert all(float(text.get("x")) + float(text.get("textLength")) <= across - 20 for text in prompts)


def full_report():
    table = ScoreTable("accuracy", ["text", "<i>code"], specialists=["text"])
    for model in ("text", "fused <b>"):
        table.add(model, "text", wilson(9, 10))
    curve = LossCurve(
        "stage 1", list(range(1, 101)), {"text": [2.0 / step for step in range(1, 101)], "law": [None] * 100}, "lr 1e-3"
    )
    examples = [trace(), trace(["a"], "mixed", labels=["code"])]
    return ReportData(
        "<title>",
        "a & b",
        NAMES,
        {"command": "ultrafuser run <x>"},
        [table.to_dict()],
        [curve],
        examples * 120,
        examples,
        ["<n>"],
    )


def test_report_is_one_safe_file(tmp_path):
    """Nothing of the data becomes markup, nothing is loaded from elsewhere, every part is there."""
    write_report(tmp_path / "report.html", full_report())
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1 and "<b>" not in text and "\x07" not in text
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert name not in ("src", "href") or value.startswith(("data:", "#")), (tag, name, value)
    assert "url(" not in text and "@import" not in text and "default-src 'none'" in text
    assert "".join(page.tokens[: len(NASTY) - 1]) == shown(NASTY)
    for part in ("fused &lt;b&gt;", "100 of 120", "ultrafuser run &lt;x&gt;", "stage 1", "&lt;n&gt;", "0.60–0.98"):
        assert part in text, part
    assert 'class="series line0"' in text and "at borders" in text


def test_report_with_nothing_in_it(tmp_path):
    """Every part may be missing: a run that was cut short still gets its report."""
    write_report(tmp_path / "report.html", ReportData("t", "s", NAMES))
    assert Page((tmp_path / "report.html").read_text()).tokens == []


def test_inspect_page_and_terminal():
    """An answer can be empty (the end token is never traced then) and must still be shown."""
    assert "".join(Page(inspect_html(trace(), NAMES)).tokens) == shown(NASTY)
    empty = TokenTrace("", "q", [], np.zeros((0, 3), dtype=np.float32))
    console = Console(file=io.StringIO(), width=80)
    show_trace(empty, NAMES, console)
    assert "the answer is empty" in console.file.getvalue() and "the answer is empty" in inspect_html(empty, NAMES)


@pytest.mark.parametrize(
    ("tokens", "limit", "cut"),
    [(["a", "b"], 2, " (--max-new-tokens)"), (["a", END_MARK], 2, None), (["a", "b"], 3, " (the model's positions)")],
)
def test_inspect_says_what_was_cut_off(tokens, limit, cut, tmp_path, monkeypatch):
    """Catches an answer cut off in silence, on the terminal or the page, and a whole one that is called cut off."""
    monkeypatch.setattr("ultrafuser.analyse.inspect.trace_answer", lambda *args: trace(tokens))
    model, console = SimpleNamespace(config=SimpleNamespace(specialist_names=NAMES)), Console(file=io.StringIO())
    inspect_prompt(model, None, [], max_new_tokens=limit, console=console)
    inspect_prompt(model, None, [], max_new_tokens=limit, html=tmp_path / "page.html")
    for said in (console.file.getvalue(), (tmp_path / "page.html").read_text()):
        said = unescape(said)
        assert f"2 tokens, cut off there{cut} · mean" in said if cut else "2 tokens · mean" in said


def test_inspect_refuses_a_plain_model():
    """One line for the user instead of a missing attribute."""
    with pytest.raises(UserError, match="some/model: has no specialists"):
        specialist_names(SimpleNamespace(config=SimpleNamespace(name_or_path="some/model")))


def test_axes():
    """Linear ticks enclose the values and are round; wide ranges are logarithmic; a flat series does not divide by zero."""
    linear = value_axis(np.array([2.13, 2.87]))
    assert linear.ticks == pytest.approx([2.0, 2.2, 2.4, 2.6, 2.8, 3.0])
    assert [linear.place(value) for value in (2.0, 3.0)] == pytest.approx([0, 1])
    log = value_axis(np.array([0.01, 1.0]))
    assert log.place(0.1) == pytest.approx(0.5) and 0.1 in [round(tick, 9) for tick in log.ticks]
    flat = value_axis(np.array([0.0, 0.0]))
    assert 0 <= flat.place(0.0) <= 1


def test_smoothing_is_a_moving_mean():
    """Against the obvious loop, the ends too."""
    points = np.stack([np.arange(200.0), np.random.default_rng(0).normal(size=200)], axis=1)
    expected = [points[max(0, i - 5) : i + 6, 1].mean() for i in range(200)]
    assert smoothed(points)[:, 1] == pytest.approx(expected)


def test_loss_chart_survives_odd_series():
    """No points, one point and NaN are drawn or said to be missing, never written into the picture."""
    assert "no losses" in loss_chart(LossCurve("s", [1], {"text": [None]}), {"text": 0})
    drawn = loss_chart(LossCurve("s", [1, 2], {"text": [float("nan"), 0.5]}), {"text": 0})
    assert "nan" not in drawn and "polyline" in drawn


def test_every_line_of_a_chart_has_a_colour() -> None:
    """Catches a domain without a specialist of its name (mixed tasks) being drawn without a stroke."""
    curve = LossCurve("joint", [1, 2], {"text": [1.0, 0.5], "mixed": [2.0, 1.0]})
    page = render_report(ReportData("t", "s", ["text", "code", "math"], curves=[curve]))
    numbers = set(re.findall(r'class="series line(\d)"', page))
    assert len(numbers) == 2
    assert all(f"--line{number}:" in page and f".line{number} {{" in page for number in numbers)

"""Report pages: whole, valid, closed to the outside, and safe against every text that can get into them."""

import dataclasses
import datetime
import io
import re
from collections import Counter
from html.parser import HTMLParser
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from schemas.steps.paths import Method
from stages.report import paths
from stages.report.charts import line_chart
from stages.report.data import (
    Counts,
    Curve,
    DirectionEvidence,
    FailureExample,
    FailureGroup,
    GalleryData,
    Hit,
    LineChart,
    Picture,
    ReportData,
    StepTiming,
    Strip,
    StripTable,
)
from stages.report.figures import interval, plain, rate, seconds, signed, ticks, within
from stages.report.gallery import gallery
from stages.report.markup import Markup, join, tag
from stages.report.page import render_report
from stages.report.preview import MAX_PIXELS, hex_lines, thumbnail
from stages.report.sections import directions
from stages.report.strips import strength_in_words, strips

EVIL = "<script>alert('x')</script>\"onload=\"alert(1)&<img src=https://evil.example/x.png>"
VOID = {"meta", "img", "br"}


def picture(seed: int = 0) -> Picture:
    return Picture.of(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def jpeg(size: tuple[int, int] = (64, 64)) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()


def report(text: str = "faces") -> ReportData:
    """A report with every part, `text` wherever a user's words can stand."""
    strips = (
        Strip((text,), (picture(1), picture(2), None), sources=(picture(3),)),
        Strip((text,), (picture(1), picture(2), picture(4)), note=text),
    )
    return ReportData(
        dataset=text,
        codec_family=text,
        fingerprint="ab" * 32,
        run_id=text,
        state="done",
        started_at=datetime.datetime(2025, 11, 20, 9, 41, tzinfo=datetime.UTC),
        counts=Counts(listed=50_000, encoded=41_210, failed=312, already=8_478, seconds=24.6, rows_per_second=1675.2),
        figures={text: text},
        strips=(
            StripTable("traverse", text, text, "add", "sigma", (-3, 0, 1.5), strips),
            StripTable("interpolate", "slerp", "paths", "", "t", (0, 0.5, 1), strips),
            StripTable(
                "interpolate", text, "means", "", "mean", (1, 2, 3), (Strip((text,) * 3, (None,) * 3, found=text),)
            ),
        ),
        directions=(
            DirectionEvidence(
                *(text, "ols", "ok", 39808, 19512, 20296, 2.41, 2.36, 2.46, 0.957, 0.952, 0.962, 0.95),
                *(7.3, 6.1, 8.4, "ok"),
            ),
            DirectionEvidence("bald", text, "single_class", 39808, 0, 39808, angle_status="not_measured"),
        ),
        failures=(
            FailureGroup("not_an_image", 2, (FailureExample(text, text, b"<script>alert(1)</script>"),)),
            FailureGroup("truncated", 9, (FailureExample(text, text, jpeg()[:-400]), FailureExample(text, text))),
        ),
        charts=(LineChart(text, text, text, (Curve(text, ((0, 3.0), (10, float("nan")), (20, 1.0))),)),),
        timings=(StepTiming("encode", "encode", 24.6, 41210), StepTiming(text, "fit", 0.0, None, text)),
        notices=(text,),
        job_yaml=text,
        versions={text: text},
    )


def answers(text: str = "faces") -> GalleryData:
    hits = (
        Hit(text, 0.25, picture(), {text: text, "glasses": True, "hat": False, "age": 0.5, "beard": None}),
        Hit("b.jpg", 1.5, None),
    )
    return GalleryData(text, "ab" * 32, text, picture(), hits, where=text)


class Page(HTMLParser):
    """Reads a page strictly: every element closed in its turn, text and attributes kept."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


PAGES = {"report": lambda text: render_report(report(text)), "gallery": lambda text: gallery(answers(text))}


@pytest.mark.parametrize("kind", list(PAGES))
def test_pages_are_well_formed_and_ask_nothing_of_anyone(kind):
    html = PAGES[kind]("faces")
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    for tag_name, name, value in page.attributes:
        assert not name.startswith("on"), (tag_name, name)
        if name in ("src", "href"):
            assert value.startswith(("data:image/", "#")), value
    style = html.split("<style>")[1].split("</style>")[0]
    assert "@import" not in style
    assert "url(" not in style
    assert "//" not in style
    assert not re.search(r"https?://", html)
    assert ("meta", "http-equiv", "Content-Security-Policy") in page.attributes


@pytest.mark.parametrize("kind", list(PAGES))
def test_hostile_text_is_shown_and_never_obeyed(kind):
    page, calm = Page(PAGES[kind](EVIL)), Page(PAGES[kind]("faces"))
    assert page.tags == calm.tags, "no text made or lost an element"
    assert EVIL in page.text
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(v.startswith(("data:image/", "#")) for _, name, v in page.attributes if name in ("src", "href"))


@pytest.mark.parametrize("kind", list(PAGES))
def test_pages_are_the_same_every_time(kind):
    assert PAGES[kind]("faces") == PAGES[kind]("faces")


@pytest.mark.parametrize("kind", list(PAGES))
def test_every_picture_is_inside_and_opens(kind):
    import base64

    sources = [v for tag_name, name, v in Page(PAGES[kind]("faces")).attributes if (tag_name, name) == ("img", "src")]
    assert sources
    for source in sources:
        Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))).load()


def test_the_report_shows_what_it_was_given():
    page = Page(render_report(report()))
    for shown in (
        "50,000",
        "41,210",
        "312",
        "8,478",
        "1,675",
        "−3",
        "+1.5",
        "σ",
        "2.41",
        "2.36 – 2.46",
        "0.957",
        "single class",
        "7.3",
        "6.1 – 8.4",
        "not measured",
    ):
        assert shown in page.text, shown
    for section in ("strips", "paths", "directions", "training", "failures", "timings", "provenance"):
        assert ("section", "id", section) in page.attributes
        assert ("a", "href", f"#{section}") in page.attributes
    assert page.text.index("truncated") < page.text.index("not an image"), "the most frequent failure first"


def test_parts_without_data_are_left_out_with_their_links():
    empty = dataclasses.replace(
        report(), strips=(), directions=(), failures=(), charts=(), timings=(), counts=None, figures={}, notices=()
    )
    page = Page(render_report(empty))
    assert [v for t, n, v in page.attributes if (t, n) == ("section", "id")] == ["provenance"]
    assert page.tags["img"] == 0


@given(st.text(), st.text())
def test_markup_escapes_any_text(child, attribute):
    parsed = Page(tag("p", child, title=attribute).replace("\r", "&#13;").replace("\0", "&#0;"))
    assert parsed.tags == Counter({"p": 1})
    assert [name for _, name, _ in parsed.attributes] == ["title"]


def test_markup_takes_nothing_it_does_not_know():
    with pytest.raises(TypeError, match="not text"):
        join(object())
    assert tag("p", Markup("<b>"), None, ["a", 1], hidden=True, title=None) == "<p hidden><b>a1</p>"


def test_a_curve_leaves_out_points_that_are_no_numbers():
    html = line_chart(LineChart("loss", "step", "nats", (Curve("a", ((0, 1.0), (1, float("inf")), (2, 3.0))),)))
    (points,) = re.findall(r'points="([^"]+)"', html)
    assert len(points.split()) == 2
    assert "nan" not in html
    assert line_chart(LineChart("loss", "step", "nats", (Curve("a", ((0, float("nan")),)),))) == ""


@pytest.mark.parametrize("points", [((5, 2.0),), ((0, 0.0), (1, 0.0)), ((0, -1e-9), (1, 1e9))])
def test_a_curve_of_one_point_or_of_one_height_is_drawn(points):
    Page(line_chart(LineChart("loss", "step", "nats", (Curve("a", points),))))


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_are_few_round_and_cover_the_range(low, span):
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 13
    slack = 1e-6 * max(abs(low), span, 1)
    assert found[0] <= low + slack
    assert found[-1] >= low + span - slack


def test_numbers_read_well():
    assert [seconds(s) for s in (0.42, 12.3, 200, 7500)] == ["0.4 s", "12 s", "3 min 20 s", "2 h 05 min"]
    assert [signed(v) for v in (-3, 0, 1.5)] == ["−3", "0", "+1.5"]
    assert [seconds(s) for s in (0.004, 0.042)] == ["< 0.01 s", "0.04 s"]
    assert [plain(v) for v in (1234.5, -0.125, 12e9, -2.88e-5)] == ["1,234", "−0.125", "1.2·10¹⁰", "−2.88·10⁻⁵"]
    assert [rate(v) for v in (1675.2, 2.345)] == ["1,675", "2.3"]


@pytest.mark.parametrize(
    ("value", "low", "high", "shown", "ends"),
    [
        (0.99757, 0.99736, 0.99778, "0.9976", "0.9974 – 0.9978"),
        (0.7831, 0.714, 0.882, "0.78", "0.71 – 0.88"),
        (-0.0272, -0.0313, -0.0230, "−0.027", "−0.031 – −0.023"),
        (124.314, 123.901, 124.709, "124.3", "123.9 – 124.7"),
        (1.0, 0.972, 1.0, "1.000", "0.972 – 1.000"),
        (14.04, 9.44, 21.41, "14.0", "9.4 – 21.4"),
        (0.0251, 0.0026, 0.0476, "0.025", "0.003 – 0.048"),
        (-0.02, -0.19, 0.16, "−0.02", "−0.19 – 0.16"),
        (0.17, -0.001, 0.34, "0.17", "0.00 – 0.34"),
        (32.0, 32.0, 32.0, "32", "32 – 32"),
        (12345.6, 11000.0, 13000.0, "12,346", "11,000 – 13,000"),
        (0.5, None, None, "0.5", ""),
        (None, None, None, "", ""),
    ],
)
def test_a_value_has_the_places_of_its_interval(value, low, high, shown, ends):
    assert (within(value, low, high), interval(low, high)) == (shown, ends)


@pytest.mark.parametrize(
    ("strength", "unit", "shown"),
    [
        (0.05, "quantile", "quantile .05"),
        (-1, "sigma", "−1 σ"),
        (0.7, "psi", "ψ .7"),
        (10, "step", "step 10"),
        (0.25, "t", ".25 of the way"),
        (1, "part", "1 of the edit"),
        (2, "effect", "+2 in its score"),
    ],
)
def test_a_strength_is_named_alike_on_every_page(strength, unit, shown):
    assert strength_in_words(strength, unit) == shown


@pytest.mark.parametrize(
    ("within", "said"),
    [
        ({}, "smiling +2 σ, added"),
        ({"region": [0, 1, 2, 4]}, "smiling +2 σ (only cells of rows 0 to 1, columns 1 to 3), added"),
        ({"channels": [0, 2]}, "smiling +2 σ (only channels 0, 2), added"),
        ({"layers": [1, 3]}, "smiling +2 σ (only layers 1 to 2), added"),
    ],
)
def test_an_edit_says_where_in_the_latent_it_holds(within, said):
    operation = {"unit": "sigma", "changes": [{"direction": "smiling", "strength": 2.0, **within}]}
    strip = Strip(("a.jpg",), (picture(),))
    assert said in str(strips(StripTable("edit", "smiling", "e", "add", "part", (1.0,), (strip,), operation)))


def test_a_resampled_direction_says_how_stable_it_is_and_why_its_angle_is_wide():
    """And what the words mean, on the page; without resampling neither is spoken of."""
    told = {"angle": 61.0, "angle_low": 30.0, "angle_high": 104.0, "angle_status": "undetermined"}
    why = {"angle_message": "label more rows", "stability": 0.61, "stability_low": 0.31, "stability_high": 0.84}
    page = directions([DirectionEvidence("smiling", "ols", "ok", **told, **why)])
    assert (
        "undetermined: label more rows" in page
        and "stability 0.61 (0.31 – 0.84)" in page
        and "Stability: fitted anew" in page
    )
    assert "tability" not in directions([DirectionEvidence("smiling", "ols", "ok")])


class TestPreviews:
    def test_a_truncated_picture_shows_what_there_is(self):
        data = jpeg()
        found = thumbnail(data[: len(data) // 2])
        assert found is not None
        assert max(Image.open(io.BytesIO(found.data)).size) <= 128

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP"])
    def test_other_formats_come_whole_or_not_at_all(self, kind):
        out = io.BytesIO()
        Image.open(io.BytesIO(jpeg())).save(out, kind)
        assert thumbnail(out.getvalue()) is not None
        assert thumbnail(out.getvalue()[:60]) is None

    @pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"GIF89a"])
    def test_what_is_no_picture_is_none(self, data):
        assert thumbnail(data) is None

    def test_a_bomb_is_not_opened(self):
        side = int(MAX_PIXELS**0.5) + 1
        out = io.BytesIO()
        Image.new("1", (side, side)).save(out, "PNG")
        assert thumbnail(out.getvalue()) is None

    def test_bytes_are_shown_four_a_line(self):
        assert hex_lines(b"Hello there, nobody") == "48 65 6c 6c\n6f 20 74 68\n65 72 65 2c\n20 6e 6f 62"


def test_a_picture_is_scaled_down_and_never_up():
    assert Image.open(io.BytesIO(Picture.of(np.zeros((400, 200, 3), np.uint8), longest=100).data)).size == (50, 100)
    assert Image.open(io.BytesIO(Picture.of(np.zeros((4, 4, 3), np.uint8)).data)).size == (4, 4)


def test_every_method_of_interpolation_is_explained_with_its_formula() -> None:
    methods = {m for m in get_args(Method) if m != "auto"}
    assert set(paths.SAID) == set(paths.FORMULAS) == methods
    table = StripTable(
        "interpolate", "t", "s", "", "mean", (1, 2), (Strip(("a", "b", "c"), (None,) * 2),), {"method": "lol"}
    )
    page = str(strips(table))
    assert "arXiv 2408.08558" in page and "means of 3 images" in page and "id plus" in page

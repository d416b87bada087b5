"""The pages in a browser: at two widths, in light and dark, and on paper."""

from __future__ import annotations

import pytest

from mta_framework.reporting.comparison_page import comparison_page
from mta_framework.reporting.run_page import run_page

# Relative luminance by the WCAG of a colour as a browser tells it: rgb(1, 2, 3).
LUMINANCE = """colour => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}"""
CONTRASTS = f"""() => {{
  const luminance = {LUMINANCE};
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  const against = colour => {{
    const [a, b] = [luminance(colour), paper].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }};
  const texts = [...document.querySelectorAll("svg text")].map(text => getComputedStyle(text).fill);
  const cells = [...document.querySelectorAll(".heat th, .bars th, .bars td")];
  const labels = cells.map(cell => getComputedStyle(cell).color);
  const bars = [...document.querySelectorAll(".bars i")].map(bar => getComputedStyle(bar).backgroundColor);
  return [...texts, ...labels, ...bars].map(against);
}}"""


@pytest.fixture(scope="module", params=["run", "comparison"])
def written(request, report, comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / f"{request.param}.html"
    path.write_text(run_page(report) if request.param == "run" else comparison_page(comparison), encoding="utf-8")
    return path


@pytest.fixture
def opened(chromium, written, request):
    """Opens the page; afterwards nothing may have been asked for, and nothing complained of."""
    asked, complaints, pages = [], [], []

    def open_page(width, scheme):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(written.as_uri())
        return page

    yield open_page
    assert set(asked) == {written.as_uri()}
    assert complaints == []
    for page in pages:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_its_window_and_can_be_read(opened, width, scheme):
    page = opened(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("window.innerWidth") == width
    figures = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(svg => svg.getBoundingClientRect().toJSON())"
    )
    assert figures
    assert all(150 < figure["width"] <= width and figure["height"] > 40 for figure in figures)
    assert min(page.evaluate(CONTRASTS)) >= 4.5
    paper = page.evaluate(f"({LUMINANCE})(getComputedStyle(document.body).backgroundColor)")
    assert (paper > 0.5) == (scheme == "light")


def test_no_text_of_a_figure_is_smaller_than_on_a_phone_can_be_read(opened):
    heights = opened(390, "light").evaluate(
        """[...document.querySelectorAll("svg text, .heat th, .bars th")]
        .map(text => text.getBoundingClientRect().height)"""
    )
    assert min(heights) >= 9


def test_cells_of_a_heat_map_are_coloured_and_of_one_size(chromium, report, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(run_page(report), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 390, "height": 900})
    page.goto(path.as_uri())
    cells = page.evaluate(
        """[...document.querySelectorAll(".heat td")].map(cell =>
          [getComputedStyle(cell).backgroundColor, cell.title, Math.round(cell.getBoundingClientRect().width)])"""
    )
    assert len(cells) == 2 * 3 * 9
    assert {colour for colour, title, _ in cells if title == "1.00"} == {"rgb(253, 231, 37)"}
    assert {colour for colour, title, _ in cells if title == "-0.50"} == {"rgb(68, 1, 84)"}
    assert len({width for _, _, width in cells}) == 1
    page.close()


def test_nothing_but_tables_and_code_scrolls_sideways(opened):
    page = opened(390, "light")
    wide = page.evaluate(
        """[...document.querySelectorAll("main *, header *")].filter(element => !element.closest(".scroll, pre, svg"))
        .filter(element => element.getBoundingClientRect().right > 391).map(element => element.outerHTML)"""
    )
    assert wide == []


def test_page_prints_on_white_without_navigation(opened):
    page = opened(1280, "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_spans_are_coloured_and_can_be_hidden(chromium, report, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(run_page(report), encoding="utf-8")
    page = chromium.new_page()
    page.goto(path.as_uri())
    old = "[...document.querySelectorAll('.s')].find(piece => piece.textContent == 'old')"
    strip = f"getComputedStyle({old}).backgroundImage"
    both = page.evaluate(strip)
    page.get_by_label("words").uncheck()
    one = page.evaluate(strip)
    assert both.count("rgba(0, 0, 0, 0)") < one.count("rgba(0, 0, 0, 0)")
    page.close()

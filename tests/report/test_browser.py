"""The report page in Chromium: every figure visible at each width, tooltips, print, no console error, no request."""

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.browser import Browser, chromium
from helpers.runs import make_small_dataset, train

from ceflpipe.stages.report.html import write_report
from ceflpipe.stages.report.sections import ReportInputs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium; on Debian: apt-get install chromium"),
]
HOSTILE = "<img src=x onerror='window.hacked=1'>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    data = make_small_dataset(tmp_path_factory.mktemp("data"), labels=("anger", "fear", HOSTILE))
    runs = tuple(train(data, head, epochs=4) for head in ("cefl", "fan", "lstm", "mean"))
    return write_report(ReportInputs(runs, data.manifest, data.table), data.root / "report")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, False), (1280, True)])
def test_every_figure_is_visible_and_nothing_is_requested(browser, page, width, dark):
    browser.open(page, width, dark=dark)
    sizes = browser.evaluate(
        "[...document.querySelectorAll('figure')].filter(f => f.checkVisibility()).map(f => {"
        " const r = f.querySelector('svg').getBoundingClientRect();"
        " return [f.id, r.width, r.height, f.querySelectorAll('svg path, svg image').length]; })"
    )
    assert {name for name, *_ in sizes} == {file.stem for file in page.parent.glob("*.png")}
    for name, figure_width, figure_height, num_marks in sizes:
        assert min(figure_width / 200, figure_height / 60, num_marks / 3) > 1, name
    # no figure or table makes the page itself wider than the window
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.errors() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.evaluate("window.hacked === undefined")


def test_the_page_follows_the_theme(browser, page):
    brightness = {}
    for dark in (False, True):
        browser.open(page, 1280, dark=dark)
        image = cv2.imdecode(np.frombuffer(browser.screenshot(), np.uint8), cv2.IMREAD_GRAYSCALE)
        brightness[dark] = np.median(image)
        fill = browser.evaluate("getComputedStyle(document.querySelector('#accuracy_by_fold svg text')).fill")
        assert fill == ("rgb(231, 233, 239)" if dark else "rgb(31, 36, 48)")
    assert brightness[False] > 240
    assert brightness[True] < 40


@pytest.mark.parametrize("width", [390, 1280])
def test_the_tooltip_of_a_point_names_its_video_and_is_never_markup(browser, page, width):
    """The element under the center of each marker, or one that covers it, has the title of its own video."""
    browser.open(page, width)
    titles = browser.evaluate(
        "[...document.querySelectorAll('#tsne g[id^=point-]')].map(point => {"
        " point.scrollIntoView({block: 'center'});"
        " const r = point.querySelector('use').getBoundingClientRect();"
        " const hits = document.elementsFromPoint(r.x + r.width / 2, r.y + r.height / 2)"
        "   .map(e => e.closest('g[id^=point-]')).filter(g => g);"
        " return [Number(point.id.slice(6)), hits.includes(point), hits[0].querySelector(':scope > title').textContent,"
        "   point.querySelector(':scope > title').textContent, point.querySelectorAll('title *').length]; })"
    )
    titles.sort()
    points = pd.read_csv(page.parent / "tsne.csv", dtype=str)
    texts = [
        f"{point.id}\nlabel: {point.label}\npredicted: {point.predicted}\nfold: {point.fold}"
        for point in points.itertuples()
    ]
    assert [title[0] for title in titles] == list(range(len(points)))
    assert all(is_hit for _, is_hit, *_ in titles)  # hollow markers too, not only their outline
    assert {tooltip for _, _, tooltip, *_ in titles} <= set(texts)
    assert [text for *_, text, _ in titles] == texts
    assert any(HOSTILE in text for text in texts)
    assert all(num_elements == 0 for *_, num_elements in titles)
    assert browser.evaluate("window.hacked === undefined")
    assert browser.errors() == []


def test_nothing_is_cut_off_in_print(browser, page):
    browser.open(page, 900)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("document.querySelector('#tsne').checkVisibility()")
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.pdf().startswith(b"%PDF")
    browser.call("Emulation.setEmulatedMedia", media="")

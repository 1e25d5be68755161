"""A person's browser shows the page: every figure drawn, nothing complained of, nothing asked of the network."""

import cv2
import numpy as np
import pytest
from helpers.browser import Browser, chromium
from helpers.runs import make_world, train

from ceflpipe.stages.report.html import make_report
from ceflpipe.stages.report.sections import ReportInputs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium here; on Debian: apt-get install chromium"),
]
READY = "typeof Bokeh !== 'undefined' && Bokeh.documents.length === 1 && Bokeh.documents[0].is_idle"
TOOLTIP = """(() => {
  const texts = [];
  const walk = node => { if (node.shadowRoot) walk(node.shadowRoot);
    const tooltip = node.classList && node.classList.contains('bk-Tooltip') && node.getBoundingClientRect().width;
    if (tooltip) texts.push(node.shadowRoot.textContent);
    for (const child of node.children || []) walk(child); };
  walk(document.body);
  return texts.join(' '); })()"""
HOSTILE = "<img src=x onerror='window.hacked=1'>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("world"), labels=("anger", "fear", HOSTILE))
    runs = tuple(train(world, head, epochs=4) for head in ("cefl", "fan", "lstm", "mean"))
    return make_report(ReportInputs(runs, world.manifest, world.table), world.home / "report")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1200, False), (1200, True)])
def test_every_figure_is_drawn_and_nothing_is_asked_of_the_network(browser, page, width, dark):
    browser.open(page, width, dark=dark)
    browser.wait_for(READY)
    sizes = browser.evaluate(
        "[...document.querySelectorAll('figure')].filter(f => f.checkVisibility()).map(f => {"
        " const r = f.querySelector('svg').getBoundingClientRect();"
        " return [f.id, r.width, r.height, f.querySelectorAll('svg path, svg image').length]; })"
    )
    drawn = {name for name, *_ in sizes}
    stems = {file.stem for file in page.parent.glob("*.png")}
    assert drawn == stems - {"tsne"}
    for name, wide, high, marks in sizes:
        assert min(wide / 200, high / 60, marks / 3) > 1, name
    # no figure or table makes the page itself wider than the window
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.evaluate("window.hacked === undefined")


def test_the_theme_is_followed(browser, page):
    shades = {}
    for dark in (False, True):
        browser.open(page, 1200, dark=dark)
        browser.wait_for(READY)
        picture = cv2.imdecode(np.frombuffer(browser.picture(), np.uint8), cv2.IMREAD_GRAYSCALE)
        shades[dark] = np.median(picture)
        ink = browser.evaluate("getComputedStyle(document.querySelector('#scores_by_fold svg text')).fill")
        assert ink == ("rgb(231, 233, 239)" if dark else "rgb(31, 36, 48)")
    assert shades[False] > 240
    assert shades[True] < 40


def test_a_mark_that_is_pointed_at_says_its_video_and_takes_no_words_for_markup(browser, page):
    browser.open(page, 1200)
    browser.wait_for(READY)
    browser.evaluate("document.getElementById('tsne').scrollIntoView()")
    left, top, wide, high = browser.evaluate(
        "(() => { const r = document.getElementById('tsne').getBoundingClientRect();"
        " return [r.x, r.y, r.width, r.height]; })()"
    )
    assert wide > 500
    assert high > 500
    seen: set[str] = set()
    for y in np.arange(top + 30, top + wide / 2, 7):
        for x in np.arange(left + 10, left + wide / 2, 7):
            browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=float(x), y=float(y))
            seen.add(browser.evaluate(TOOLTIP))
        if any(HOSTILE in words for words in seen):
            break
    assert any("small/v" in words and "predicted" in words for words in seen), seen
    assert any(HOSTILE in words for words in seen), seen
    assert browser.evaluate("window.hacked === undefined")
    assert browser.complaints() == []


def test_in_print_the_plot_becomes_a_picture_and_nothing_is_cut_off(browser, page):
    browser.open(page, 900)
    browser.wait_for(READY)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(
        "document.querySelector('.print figure').checkVisibility()"
        " && !document.getElementById('tsne').checkVisibility()"
    )
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.pdf().startswith(b"%PDF")
    browser.call("Emulation.setEmulatedMedia", media="")

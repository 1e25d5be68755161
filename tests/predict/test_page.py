"""The page of a prediction in Chromium: it plays, draws, seeks and corrects; what it saves is read by other readers."""

import io
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pympi
import pytest
from helpers.browser import Browser, chromium
from helpers.video import encode_video

from ceflpipe.cache.features import FrameStatus
from ceflpipe.stages.predict.formats.page import write_page
from ceflpipe.stages.predict.formats.video_result import VideoResult
from ceflpipe.stages.predict.predict import VideoView
from ceflpipe.stages.predict.prediction import FaceTrack, Prediction, WindowPrediction

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium; on Debian: apt-get install chromium"),
]
LABELS = ("anger", "<img src=x onerror='window.hacked=1'>", 'say "no", or </script>')
FPS, SIZE, COUNT = 20, (320, 180), 60


def make_person(track, first_frame, spans, box):
    """Return a prediction of windows (frames, label, probability) whose face does not move."""
    count = sum(frames for frames, *_ in spans)
    edges = [(first_frame + i) / FPS for i in range(count + 1)]
    windows, begin = [], 0
    for frames, label, probability in spans:
        rest = {each: probability if each == label else (1 - probability) / 2 for each in LABELS}
        span = edges[begin], edges[begin + frames]
        intensity = [(*span, probability / 2)]
        windows.append(WindowPrediction(first_frame + begin, frames, *span, label, rest, intensity, span))
        begin += frames
    face = FaceTrack(
        np.full(count, FrameStatus.DETECTED, np.uint8), np.full(count, 0.9, np.float32),
        np.tile(np.float32(box), (count, 1)), np.zeros((count, 5, 2), np.float32),
    )  # fmt: skip
    return Prediction(
        Path("x"), count, count, float(FPS), spans[0][1], windows[0].probabilities, windows[0].intensity, track=track,
        begin=edges[0], end=edges[-1], windows=tuple(windows), first_frame=first_frame, edges=tuple(edges), labels=LABELS, face=face,
    )  # fmt: skip


@pytest.fixture(scope="module")
def persons():
    first = make_person(1, 0, [(30, LABELS[0], 0.9), (30, LABELS[1], 0.6)], (40, 30, 100, 110))
    second = make_person(2, 20, [(40, LABELS[2], 0.7)], (200, 40, 260, 120))
    return [first, replace(second, person=2, name='Ada "A", <i>')]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, persons):
    """A page beside a video that browsers play, and one beside a video that they do not."""
    folder = tmp_path_factory.mktemp("100 % & <more>")
    frames = [np.full((SIZE[1], SIZE[0], 3), 4 * i, np.uint8) for i in range(COUNT)]
    video = encode_video(folder / "my #1.mp4", frames, codec="libx264", fps=FPS)
    write_page(VideoResult(video, persons, LABELS), folder / "page.html", folder / "my #1.cefl.html")
    (folder / "old.avi").write_bytes(b"RIFF")
    write_page(VideoResult(folder / "old.avi", persons, LABELS), folder / "old.html", folder / "old.html")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser, folder):
    browser.open(folder / "page.html", 1280)
    browser.wait_for("video.readyState >= 2")
    return browser


def press(browser, key):
    browser.evaluate(
        f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: {key!r}, bubbles: true, cancelable: true}}))"
    )


def click(browser, selector, number=0):
    x, y = browser.evaluate(
        f"(() => {{ const element = document.querySelectorAll({selector!r})[{number}];"
        " element.scrollIntoView({block: 'center'}); const r = element.getBoundingClientRect();"
        " return [r.left + r.width / 2, r.top + r.height / 2]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_it_plays_at_phone_and_desktop_width_and_asks_for_nothing_but_the_video(browser, folder, width, dark):
    browser.open(folder / "page.html", width, dark=dark)
    browser.wait_for("video.readyState >= 2")
    browser.evaluate("(video.muted = true, video.play())")
    browser.wait_for("time > 0.5")
    assert browser.evaluate("Math.abs(time - video.currentTime) < 0.2")
    browser.evaluate("video.pause()")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.errors() == []
    assert set(browser.requests()) == {(folder / name).resolve().as_uri() for name in ("page.html", "my #1.mp4")}
    assert browser.evaluate("window.hacked === undefined")
    assert browser.evaluate("[...$('legend').children].map(li => li.textContent)") == list(LABELS)


def test_boxes_are_at_the_faces(page):
    """The oracle: an image of the page. The frame that is shown has the brightness that it was encoded with."""
    for index, colors in ((10, 1), (25, 2)):
        page.evaluate(f"seek({(index + 0.5) / FPS})")
        page.wait_for("!video.seeking")
        time.sleep(0.3)
        image = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        left, top, width, height = page.evaluate(
            "(() => { const r = $('boxes').getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()"
        )
        scale = width / SIZE[0]
        assert height / SIZE[1] == pytest.approx(scale, abs=0.01)

        def pixel(x, y, image=image, left=left, top=top, scale=scale):
            return image[round(top + y * scale), round(left + x * scale)].astype(int)

        assert pixel(20, 20)[0] == pytest.approx(4 * index, abs=8)
        visible = [np.ptp(pixel(*edge)) > 60 for edge in ((40, 70), (200, 80))]  # the left edge of each box is colored
        assert visible == [True, colors == 2]


def test_a_click_on_a_segment_or_a_curve_goes_there(page):
    click(page, ".lane button", 1)
    page.wait_for("!video.seeking")
    assert page.evaluate("video.currentTime") == pytest.approx(1.5, abs=0.01)
    assert page.evaluate("chosen === persons[0].segments[1]")
    click(page, "canvas.curves")
    page.wait_for("!video.seeking")
    assert page.evaluate("video.currentTime") == pytest.approx(1.5, abs=0.02)  # the middle of three seconds
    page.evaluate("step(1)")
    page.wait_for("!video.seeking")
    assert page.evaluate("frameAt(persons[0], video.currentTime)") == 31


def saved(page, tmp_path, button, name):
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    click(page, f"#{button}")
    deadline = time.monotonic() + 20
    while not (tmp_path / name).is_file():
        assert time.monotonic() < deadline, list(tmp_path.iterdir())
        time.sleep(0.1)
    return tmp_path / name


def test_what_was_not_changed_is_saved_as_it_was_predicted(page, persons, tmp_path):
    table = pd.read_csv(saved(page, tmp_path, "csv", "my #1.cefl.corrected.csv")).fillna({"name": ""})
    expected = pd.concat([person.segments() for person in persons], ignore_index=True)
    assert table.edited.eq(0).all()
    pd.testing.assert_frame_equal(table.drop(columns="edited"), expected, check_dtype=False, rtol=1e-4)
    assert table.begin.tolist() == expected.begin.tolist()  # times with all their digits
    eaf = pympi.Elan.Eaf(str(saved(page, tmp_path, "eaf", "my #1.cefl.corrected.eaf")))
    for person in persons:
        rows = [(round(1000 * row.begin), round(1000 * row.end), row.label) for row in person.segments().itertuples()]
        assert [each[:3] for each in eaf.get_annotation_data_for_tier(person.display_name)] == rows
        assert eaf.get_annotation_data_for_tier(f"{person.display_name} intensity")


def test_a_person_of_two_tracks_has_one_lane_one_tier_and_both_numbers(browser, folder, tmp_path):
    """Between the tracks nothing is shown, and what is saved names the track of each segment."""
    box = (40, 30, 100, 110)
    first = make_person(1, 0, [(20, LABELS[0], 0.9)], box)
    tracks = [first, make_person(2, 35, [(25, LABELS[1], 0.6)], box)]
    tracks = [replace(track, person=1, name="Ada") for track in tracks]
    write_page(VideoResult(folder / "my #1.mp4", tracks, LABELS), folder / "two.html", folder / "two.cefl.html")
    browser.open(folder / "two.html", 1280)
    assert browser.evaluate("persons.length") == 1
    shown = browser.evaluate("[10, 25, 40].map(n => frameAt(persons[0], (n + .5) / 20))")
    assert shown == [10, 25, 40]  # frames of the file keep their numbers
    assert browser.evaluate("[10, 25, 40].map(i => persons[0].box[4 * i])") == [40, -32768, 40]
    assert browser.evaluate("[10, 25, 40].map(i => Number.isNaN(probability(persons[0], i, 0)))") == [
        False,
        True,
        False,
    ]
    table = pd.read_csv(io.StringIO(browser.evaluate("toCsv()")))
    assert table[["track", "person", "name", "begin", "end"]].to_numpy().tolist() == [
        [1, 1, "Ada", 0, 1],
        [2, 1, "Ada", 1.75, 3],
    ]
    browser.evaluate("openCsv(toCsv())")
    assert browser.evaluate("persons[0].segments.length") == 2
    (tmp_path / "two.eaf").write_text(browser.evaluate("toEaf()"))
    eaf = pympi.Elan.Eaf(str(tmp_path / "two.eaf"))
    assert [each[:2] for each in eaf.get_annotation_data_for_tier("Ada")] == [(0, 1000), (1750, 3000)]


def test_segments_are_corrected_saved_and_opened_again(page, tmp_path):
    click(page, ".lane button", 0)
    press(page, "3")  # relabel the first segment of the first person, 0 to 1.5 s
    page.evaluate(f"seek({20.5 / FPS})")
    press(page, "s")  # split it at 1 s; the second part is chosen
    press(page, "1")
    click(page, ".lane button", 3)  # the segment of the other person, 1 to 3 s
    page.evaluate(f"seek({30.5 / FPS})")
    press(page, "[")
    assert page.evaluate("unsaved")
    path = saved(page, tmp_path, "csv", "my #1.cefl.corrected.csv")
    table = pd.read_csv(path)
    expected = [
        (1, 0, 1, LABELS[2], 1),
        (1, 1, 1.5, LABELS[0], 1),
        (1, 1.5, 3, LABELS[1], 0),
        (2, 1.5, 3, LABELS[2], 1),
    ]
    assert list(table[["track", "begin", "end", "label", "edited"]].itertuples(index=False, name=None)) == expected
    assert table.confidence.tolist() == pytest.approx([0.05, 0.9, 0.6, 0.7], abs=1e-3)
    assert table.frames.tolist() == [20, 10, 30, 30]
    eaf = pympi.Elan.Eaf(str(saved(page, tmp_path, "eaf", "my #1.cefl.corrected.eaf")))
    assert [each[:3] for each in eaf.get_annotation_data_for_tier("person 1")] == [
        (round(1000 * begin), round(1000 * end), label) for track, begin, end, label, _ in expected if track == 1
    ]
    for _ in range(4):
        press(page, "x")  # no command
        page.evaluate("undo()")
    assert page.evaluate("toCsv()") != path.read_text()
    page.evaluate(f"openCsv({path.read_text()!r})")
    assert page.evaluate("toCsv()") == path.read_text()
    page.evaluate("openCsv('a,b\\n1,2\\n')")
    assert "not a saved CSV" in page.evaluate("$('state').textContent")
    assert page.evaluate("toCsv()") == path.read_text()


def test_a_video_that_the_browser_cannot_play_can_be_chosen_by_hand(browser, folder):
    browser.open(folder / "old.html", 1280)
    browser.wait_for("!$('missing').hidden")
    assert "cannot play old.avi" in browser.evaluate("$('missing').textContent")
    node = browser.call("DOM.getDocument")["root"]["nodeId"]
    field = browser.call("DOM.querySelector", nodeId=node, selector="#pick")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=field, files=[str(folder / "my #1.mp4")])
    browser.wait_for("video.readyState >= 2 && !video.hidden")


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_boxes_of_a_rotated_region_are_placed_in_the_upright_video(browser, tmp_path, folder, rotation):
    """The oracle: OpenCV turns an image with one mark, of which the region is cut out."""
    image = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    image[30:50, 60:110] = 255
    turned = cv2.rotate(
        image, {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}[rotation]
    )
    y, x = (int(axis.min()) for axis in np.nonzero(turned))
    rows, columns = (np.ptp(axis) + 1 for axis in np.nonzero(turned))
    region = (x - 5, y - 7, 80, 80)
    person = make_person(1, 0, [(COUNT, LABELS[0], 0.9)], (5, 7, 5 + columns, 7 + rows))
    person = Prediction(**{**person.__dict__, "rotation": str(rotation)})
    view = VideoView(rotation=str(rotation), region=" ".join(map(str, region)))
    write_page(VideoResult(folder / "my #1.mp4", [person], LABELS, view=view), tmp_path / "x.html", tmp_path / "x.html")
    browser.open(tmp_path / "x.html", 1280)
    browser.wait_for("video.readyState >= 2")
    assert browser.evaluate("placed(persons[0].box.subarray(0, 4))") == [60, 30, 110, 50]


def test_no_text_ends_the_script_that_holds_the_data(folder):
    text = (folder / "page.html").read_text()
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert 'say \\"no\\", or \\u003c/script>' in data
    assert io.StringIO(data).read().count("<") == 0

"""Terminal output: rows as they come, charts on terminals, plain lines elsewhere, letters of ASCII where there is no UTF-8."""

import io
import re
import sys
from pathlib import Path

import pytest

from ceflpipe.pipeline.commands.cmd_predict import _print_details, _RecordPrinter
from ceflpipe.pipeline.console import Column, RowPrinter, echo, echo_chart_over_time, progress

NAN = float("nan")


class Output(io.TextIOWrapper):
    """A standard output, which may be a terminal, of so many columns."""

    def __init__(self, is_terminal, encoding):
        super().__init__(io.BytesIO(), encoding, errors="backslashreplace")
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal

    def text(self):
        self.flush()
        return re.sub(r"\x1b\[[\d;]*m", "", self.buffer.getvalue().decode(self.encoding))


@pytest.fixture
def output(monkeypatch):
    def make(is_terminal=True, columns=80, encoding="utf-8"):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        stream = Output(is_terminal, encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return make


def record(windows, **values):
    """Return a record of predict with windows of (begin, end, probabilities)."""
    parts = [{"begin": b, "end": e, "label": max(p, key=p.get) if p else "", "probabilities": p} for b, e, p in windows]
    fields = {
        "path": "a/film.mp4",
        "track": 0,
        "label": "fear",
        "confidence": 0.75,
        "probabilities": {"fear": 0.75, "joy": 0.25},
    }
    fields |= {
        "frames": 200,
        "frames_with_face": 150,
        "begin": 0.0,
        "end": 8.0,
        "failure": "",
        "note": "",
        "windows": parts,
    }
    fields |= {
        "person": "",
        "name": "",
        "unsure": False,
        "naming": "",
        "intensity": [],
        "located_time": None,
        "aggregation": "mean of 2 windows",
    }
    segment = {"begin": 0.0, "end": 8.0, "label": "fear", "confidence": 0.75}
    return fields | {"segments": [segment]} | values


def test_rows_come_one_by_one_and_stand_under_their_titles(output):
    stream = output(columns=60)
    rows = RowPrinter("video", 100, [Column("label", 9), Column("confidence", 7, is_number=True)])
    rows("a" * 50 + "end.mp4", ["happiness", "99.1 %"])
    first = stream.text().splitlines()
    rows("界.mp4", ["—", "—"])
    lines = stream.text().splitlines()
    assert len(first) == 3
    assert lines[:3] == first
    assert max(map(len, lines)) <= 60
    assert first[2].startswith("…a")
    assert "end.mp4  happiness" in first[2]
    assert first[0].index("label") == first[2].index("happiness")
    assert {first[0].rstrip().index("confidence") + 10} == {first[2].index("%") + 1}
    piped = output(is_terminal=False)
    RowPrinter("video", 57, [Column("label", 9)])("a" * 50 + "end.mp4", ["happiness"])
    assert "a" * 50 + "end.mp4  happiness" in piped.text()


def test_heights_are_the_values_and_unknown_ones_are_empty(output):
    stream = output()
    echo_chart_over_time({"fear": [1.0, 0.5, 0.0, NAN], "joy": [0.0, 0.5, 1.0, NAN]}, 0.0, 4.0)
    fear, joy, axis = stream.text().splitlines()
    assert fear == "  fear  █▄     50 %"
    assert joy == "  joy    ▄█    50 %"
    assert axis.split() == ["0.0", "s", "4.0", "s"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_without_utf_8_there_are_letters_of_ascii_only(output, is_terminal):
    stream = output(is_terminal=is_terminal, encoding="ascii")
    shown = record([(0, 5, {"fear": 0.9, "joy": 0.1}), (3, 8, {"fear": 0.6, "joy": 0.4})], located_time=(1.0, 2.0))
    _RecordPrinter([Path("a/film.mp4")], ("fear", "joy"), all_faces=False)([shown])
    _print_details([shown], ("fear", "joy"))
    echo("89.05 ± 7.24 %")
    assert "\\" not in stream.text()
    assert "1.00-2.00 s" in stream.text()


def test_a_terminal_has_a_chart_and_a_pipe_or_no_color_plain_lines(output, monkeypatch):
    windows = [(0, 5, {"fear": 0.9, "joy": 0.1, "anger": 0.0}), (3, 8, {"fear": 0.2, "joy": 0.8, "anger": 0.0})]
    stream = output(columns=50)
    _print_details([record(windows)], ("fear", "joy", "anger"))
    lines = stream.text().splitlines()
    assert max(map(len, lines)) <= 50
    (fear,) = [line for line in lines if line.startswith("  fear")]
    (joy,) = [line for line in lines if line.startswith("  joy")]
    bars = [line[9:-7] for line in (fear, joy)]
    assert bars[0][0] == "▇"
    assert bars[1][-1] == "▆"
    assert len(bars[0]) == len(bars[1])
    assert bars[0][len(bars[0]) // 2] == "▄"  # the mean of 0.9 and 0.2
    for is_terminal in (False, True):
        stream = output(is_terminal)
        monkeypatch.setenv("NO_COLOR", "1")
        _print_details([record(windows)], ("fear", "joy", "anger"))
        assert "    0.00–    8.00 s  fear    75.0 %" in stream.text()
        assert not set(stream.text()) & set("▁▂▃▄▅▆▇█")


def test_a_row_says_how_long_and_how_often_a_face_was_there(output):
    stream = output()
    show = _RecordPrinter([Path("film.mp4")], ("fear", "joy"), all_faces=True)
    show([record([], track=1, person=1), record([], track=2, person=2, name="Ada", unsure=True)])
    show([record([], label="", confidence=None, failure="no face", frames=0, begin=0.0, end=0.0, path="b.mp4")])
    rows = [re.split(r"  +", line) for line in stream.text().splitlines()]
    assert rows[0] == ["video", "expression", "confidence", "face found", "time", "track", "person"]
    assert rows[2] == ["film.mp4", "fear", "75.0 %", "75 %", "0.0–8.0 s", "1 of 2", "1"]
    assert rows[3][-2:] == ["2 of 2", "Ada ?"]
    assert rows[4] == ["b.mp4", "—", "—", "—", "—", "—", "—"]


def test_rows_during_progress_reach_standard_output_if_that_is_no_terminal(output, monkeypatch):
    """The bar of a terminal's standard error must not swallow what goes into a file."""
    stream = output(is_terminal=False)
    errors = Output(True, "utf-8")
    monkeypatch.setattr(sys, "stderr", errors)
    with progress("predicting") as on_progress:
        on_progress(1, 2, "a.mp4")
        echo("a row")
    assert stream.text() == "a row\n"
    assert "a row" not in errors.text()
    assert "predicting" in errors.text()

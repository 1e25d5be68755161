"""Files for BORIS: a project that opens as it is, and a sheet of events that it imports into an open observation.

The project has format 7.0, that of BORIS 7 to 10, with the keys that open_project_json and the observation window of BORIS read.
The sheet has the columns that load_observations_from_spreadsheet asks for: time, subject, code, modifier and comment.
"""

from __future__ import annotations

import json
import string
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from ..sound import has_sound
from .video_result import VideoResult, milliseconds, one_line, relative_path

PROJECT_FORMAT = "7.0"
EVENT_COLUMNS = ("time", "subject", "code", "modifier", "comment")
KEYS = string.digits[1:] + string.ascii_lowercase
"""Keys that code a behavior, in the order of the labels."""
NUM_PLAYERS = 8
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The same events give the same bytes."""

Event = tuple[float, str, str, str, str, int]
"""Time in seconds, subject, code, modifier, comment, index of the frame."""


def events(result: VideoResult) -> list[Event]:
    """Return a start and a stop per segment, which is how BORIS keeps a state event, in order of time, subject and code."""
    changes: list[Event] = []
    for person, prediction in ((each.name, track) for each in result.persons for track in each.tracks):
        for row in prediction.segments().to_dict("records"):
            begin, end = milliseconds(row["begin"]), milliseconds(row["end"])
            if begin == end:
                continue
            first = prediction.first_frame + prediction.frame_range((row["begin"], row["end"])).start
            code, comment = one_line(row["label"]), f"confidence {row['confidence']:.2f}"
            changes.append((begin / 1000, person, code, "", comment, first))
            changes.append((end / 1000, person, code, "", "", first + row["frames"]))
    return sorted(changes, key=lambda event: event[:3])


def write_project(result: VideoResult, path: Path, target: Path) -> None:
    """Write a project: labels as state events, persons as subjects, and the video as one observation with its events."""
    changed = datetime.fromtimestamp(int(result.video.stat().st_mtime), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    behaviors = {
        str(index): {
            "type": "State event", "key": KEYS[index] if index < len(KEYS) else "", "code": one_line(label),
            "description": "", "color": "", "category": "", "modifiers": {}, "excluded": "", "coding map": "",
        }
        for index, label in enumerate(result.labels)
    }  # fmt: skip
    persons = {
        str(index): {"key": "", "name": person.name, "description": ""} for index, person in enumerate(result.persons)
    }
    project = {
        "time_format": "hh:mm:ss",
        "project_date": changed,
        "project_name": one_line(result.video.stem),
        "project_description": "expressions by ceflpipe predict",
        "project_format_version": PROJECT_FORMAT,
        "subjects_conf": persons,
        "behaviors_conf": behaviors,
        "observations": {one_line(result.video.stem): _observation(result, target, changed)},
        "behavioral_categories": [],
        "behavioral_categories_config": {},
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    path.write_text(json.dumps(project, indent=1) + "\n", encoding="utf-8")


def _observation(result: VideoResult, target: Path, changed: str) -> dict[str, Any]:
    video = relative_path(result.video, target.parent).as_posix()
    longest = max(result.predictions, key=lambda prediction: prediction.end)
    return {
        "file": {str(player): [video] if player == 1 else [] for player in range(1, NUM_PLAYERS + 1)},
        "type": "MEDIA",
        "date": changed,
        "description": "",
        "time offset": 0.0,
        "observation time interval": [0, 0],
        "events": [list(event) for event in events(result)],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "media_scan_sampling_duration": 0,
        "image_display_duration": 1,
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {video: longest.end},
            "fps": {video: longest.fps},
            "hasVideo": {video: True},
            "hasAudio": {video: has_sound(result.video)},
            "offset": {str(player): 0.0 for player in range(1, NUM_PLAYERS + 1)},
            "display": {video: ""},
        },
        "plot_data": {},
    }


# ---- the sheet, ECMA-376 part 1, section 18: one sheet, texts in the cells


CONTENT_TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml"
RELATIONSHIPS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{CONTENT_TYPES}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{CONTENT_TYPES}.worksheet+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="rId1" '
    f'Type="{RELATIONSHIPS}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONSHIPS}"><sheets>'
    '<sheet name="events" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="rId1" '
    f'Type="{RELATIONSHIPS}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
}


def write_sheet(result: VideoResult, path: Path, target: Path) -> None:
    """Write the events as a spreadsheet (.xlsx); times are seconds."""
    rows = [_row(EVENT_COLUMNS), *(_row(event[: len(EVENT_COLUMNS)]) for event in events(result))]
    sheet = f'<worksheet xmlns="{MAIN}"><sheetData>{"".join(rows)}</sheetData></worksheet>'
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**PARTS, "xl/worksheets/sheet1.xml": sheet}.items():
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, DECLARATION + text)


def _row(values: tuple[float | str, ...]) -> str:
    cells = [
        f'<c t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'
        if isinstance(value, str)
        else f"<c><v>{value}</v></c>"
        for value in values
    ]
    return f"<row>{''.join(cells)}</row>"

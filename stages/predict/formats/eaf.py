"""Annotation documents of ELAN: a tier per person with the labels, and one with the intensity, linked to the video.

The format is EAF 2.8, the newest that pympi reads without a warning; ELAN 5 and later open it and save it as 3.0.
"""

from __future__ import annotations

import mimetypes
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

from ..prediction import Prediction
from .video_result import VideoResult, file_url, milliseconds, one_line, relative_path, url_path

FORMAT = "2.8"
SCHEMA = f"http://www.mpi.nl/tools/elan/EAFv{FORMAT}.xsd"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
LANGUAGE = "und"
"""Undetermined, in ISO 639-3: labels are those of the data set."""
VOCABULARY = "expression"

Annotation = tuple[int, int, str, str]
"""Begin and end in milliseconds, text, and the id of the text's entry in the vocabulary or ''."""


def write_eaf(result: VideoResult, path: Path, target: Path) -> None:
    """Write the document of ``eaf_document``."""
    path.write_bytes(eaf_document(result, target))


def eaf_document(result: VideoResult, target: Path) -> bytes:
    """Return the document for a file at ``target``: tiers ``person N`` (expression) and ``person N intensity`` of every person.

    A person with a name has it in place of ``person N``.

    Expressions are a controlled vocabulary, so that ELAN offers the labels of the run where one is corrected. A tier without
    annotations is written, too. Times are rounded to milliseconds, which is what EAF can hold.
    """
    ElementTree.register_namespace("xsi", INSTANCE)
    changed = datetime.fromtimestamp(int(result.video.stat().st_mtime), UTC)
    document = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "ceflpipe", "DATE": changed.isoformat(), "FORMAT": FORMAT, "VERSION": FORMAT,
            f"{{{INSTANCE}}}noNamespaceSchemaLocation": SCHEMA,
        },
    )  # fmt: skip
    header = ElementTree.SubElement(document, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if result.video.is_file():  # a folder of images is nothing that ELAN plays
        _add_media(header, result.video, target)
    entries = {label: f"cve{number}" for number, label in enumerate(result.labels)}
    tiers: list[tuple[dict[str, str], list[Annotation]]] = []
    for person in result.persons:
        whose = {"PARTICIPANT": person.name, "ANNOTATOR": "ceflpipe"}
        expression = {"TIER_ID": person.name, "LINGUISTIC_TYPE_REF": "expression"}
        intensity = {"TIER_ID": f"{person.name} intensity", "LINGUISTIC_TYPE_REF": "intensity"}
        tiers.append((whose | expression, [each for track in person.tracks for each in _expressions(track, entries)]))
        tiers.append((whose | intensity, [each for track in person.tracks for each in _intensities(track)]))
    annotations = [each for _, tier in tiers for each in tier]
    times = sorted({time for begin, end, *_ in annotations for time in (begin, end)})
    slots = {time: f"ts{number}" for number, time in enumerate(times, start=1)}
    order = ElementTree.SubElement(document, "TIME_ORDER")
    for time, slot in slots.items():
        ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(time))
    _add_tiers(document, tiers, slots)
    last = str(len(annotations))
    ElementTree.SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId").text = last
    _add_types(document, entries)
    ElementTree.indent(document, " ")
    text = ElementTree.tostring(document, encoding="UTF-8", xml_declaration=True)
    return text + b"\n"


def _add_media(header: ElementTree.Element, video: Path, target: Path) -> None:
    relative, kind = relative_path(video, target.parent), mimetypes.guess_type(video.name)[0] or ""
    ElementTree.SubElement(
        header,
        "MEDIA_DESCRIPTOR",
        MEDIA_URL=file_url(video.absolute()),
        RELATIVE_MEDIA_URL=file_url(relative) if relative.is_absolute() else _relative_url(relative),
        MIME_TYPE=kind if kind.startswith("video/") else "video/*",
    )


def _relative_url(path: Path) -> str:
    url = url_path(path)
    return url if url.startswith("../") else f"./{url}"


def _expressions(prediction: Prediction, entries: dict[str, str]) -> list[Annotation]:
    return [
        (begin, end, one_line(row["label"]), entries[row["label"]])
        for row in prediction.segments().to_dict("records")
        if (begin := milliseconds(row["begin"])) < (end := milliseconds(row["end"]))
    ]


def _intensities(prediction: Prediction) -> list[Annotation]:
    """Return an annotation per span of one intensity, in three digits."""
    texts = [f"{value:.3f}" for value in prediction.frames()["intensity"]]
    annotations: list[Annotation] = []
    for text, group in groupby(range(len(texts)), key=texts.__getitem__):
        frames = list(group)
        begin, end = milliseconds(prediction.edges[frames[0]]), milliseconds(prediction.edges[frames[-1] + 1])
        if text != "nan" and begin < end:
            annotations.append((begin, end, text, ""))
    return annotations


def _add_tiers(
    document: ElementTree.Element, tiers: list[tuple[dict[str, str], list[Annotation]]], slots: dict[int, str]
) -> None:
    number = 0
    for attributes, aligned in tiers:
        tier = ElementTree.SubElement(document, "TIER", attributes)
        for begin, end, text, entry in aligned:
            number += 1
            values = {"ANNOTATION_ID": f"a{number}", "TIME_SLOT_REF1": slots[begin], "TIME_SLOT_REF2": slots[end]}
            if entry:
                values["CVE_REF"] = entry
            annotation = ElementTree.SubElement(tier, "ANNOTATION")
            element = ElementTree.SubElement(annotation, "ALIGNABLE_ANNOTATION", values)
            ElementTree.SubElement(element, "ANNOTATION_VALUE").text = text


def _add_types(document: ElementTree.Element, entries: dict[str, str]) -> None:
    for name, more in (("expression", {"CONTROLLED_VOCABULARY_REF": VOCABULARY}), ("intensity", {})):
        values = {"LINGUISTIC_TYPE_ID": name, "TIME_ALIGNABLE": "true", "GRAPHIC_REFERENCES": "false"}
        ElementTree.SubElement(document, "LINGUISTIC_TYPE", values | more)
    ElementTree.SubElement(document, "LANGUAGE", LANG_ID=LANGUAGE, LANG_LABEL="undetermined")
    vocabulary = ElementTree.SubElement(document, "CONTROLLED_VOCABULARY", CV_ID=VOCABULARY)
    ElementTree.SubElement(vocabulary, "DESCRIPTION", LANG_REF=LANGUAGE).text = "labels of the run"
    for label, entry in entries.items():
        element = ElementTree.SubElement(vocabulary, "CV_ENTRY_ML", CVE_ID=entry)
        ElementTree.SubElement(element, "CVE_VALUE", LANG_REF=LANGUAGE).text = one_line(label)

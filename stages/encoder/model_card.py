"""Model card of an encoder file, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..fold_encoder import SOURCE_LISTS
from .weights import EncoderFile, is_onnx

WEAK_RECALL = 0.5
"""Recall (0..1) below which the card says that the encoder fails on a label."""
LIMITS = (
    "It names the expression that a face shows, as annotators did; it does not know what a person feels. Accuracy differs "
    "between groups of people, cameras and cultures and was not measured for them. It must not be used to decide on people: not "
    "in hiring, schools, policing, border control, insurance or medical diagnosis."
)


def model_card(encoder: EncoderFile) -> str:
    """Return what an encoder file is, its training, its scores, on what it fails, and who must not use it for what."""
    metadata = encoder.metadata
    lines = [f"# Encoder {encoder.name}", ""]
    size = f"{encoder.crop_size} x {encoder.crop_size} pixels" if encoder.crop_size else "size not stated"
    lines += [
        f"{'ONNX network' if is_onnx(encoder.path) else 'ResNet-18'}, {encoder.width} features; crops of {size}, "
        f"{encoder.template} template, normalization {encoder.normalization}, "
        f"stored as {encoder.storage}. SHA-256 `{encoder.sha256}`.",
        "",
        "## Data and training",
        "",
    ]
    hidden = {"recall", "confusion", "held_out_score", "labels", "storage_cosine", "crop_size", "storage", "key"}
    lines += [
        f"- {key.replace('_', ' ')}: {_value(key, value)}" for key, value in metadata.items() if key not in hidden
    ]
    score = metadata.get("held_out_score", "not measured")
    lines += ["", "## Accuracy", "", f"{score}.", ""]
    if "storage_cosine" in metadata:
        lines += [f"Cosine of its features to those of the 32-bit weights: {metadata['storage_cosine']}.", ""]
    if "confusion" in metadata:
        labels = metadata["labels"].split(", ")
        lines += confusion_lines(labels, json.loads(metadata["confusion"]))
        recall = json.loads(metadata["recall"])
        weak = [f"{label} ({value:.2f})" for label, value in recall.items() if value < WEAK_RECALL]
        absent = [label for label in labels if label not in recall]
        lines += ["", "## Fails on", ""]
        lines += [f"Labels with a recall below {WEAK_RECALL}: {', '.join(weak) or 'none'}."]
        lines += [f"Not measured: {', '.join(absent)}."] if absent else []
        lines += [""]
    return "\n".join([*lines, "## Limits", "", LIMITS, ""])


def _value(key: str, value: str) -> str:
    """Return a value of the metadata; of the sources that a fold's encoder records only their number."""
    if key not in SOURCE_LISTS:
        return value
    return f"{len(json.loads(value))} video files, whose hashes the file lists"


def confusion_lines(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    """Return a confusion matrix as the lines of a Markdown table: a row per true label, its recall in percent last."""
    lines = [f"| true \\ predicted | {' | '.join(labels)} | recall % |", "|---" * (len(labels) + 2) + "|"]
    for index, (label, row) in enumerate(zip(labels, confusion, strict=True)):
        recall = f"{100 * row[index] / sum(row):.1f}" if sum(row) else "—"
        lines.append(f"| {label} | {' | '.join(map(str, row))} | {recall} |")
    return lines

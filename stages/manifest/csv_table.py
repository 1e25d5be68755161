"""CSV as spreadsheet programs write it: text in any of their encodings, the delimiter found from the header, rows of text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import CeflError

DELIMITERS = (",", ";", "\t", "|")
"""Delimiters by which a header is tried, the most usual first."""
_MAX_HEADER = 1 << 16
_SEP_LINE = re.compile(r'[ \t]*"?sep=(.)"?[,;\t ]*(?:\r\n|\r|\n)', re.IGNORECASE)
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"),
)  # fmt: skip
_WORKBOOKS = {b"PK\x03\x04": "a workbook (.xlsx, .ods)", b"\xd0\xcf\x11\xe0": "a workbook (.xls)"}
_WINDOWS_1252 = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0xA0)}


@dataclass(frozen=True)
class CsvTable:
    """Cells of a CSV by column and row, without blank rows, and the line of the file on which each row begins.

    Columns are in lower case and without spaces around them; so are the cells, in their own case. Rows are as long as
    ``columns``.
    """

    columns: list[str]
    rows: list[list[str]]
    lines: list[int]
    delimiter: str

    def column(self, name: str) -> list[str]:
        """Return the cells of a column; empty ones if there is no such column."""
        if name not in self.columns:
            return [""] * len(self.rows)
        number = self.columns.index(name)
        return [row[number].strip() for row in self.rows]


def detect_encoding(raw: bytes) -> tuple[str, int]:
    """Return the encoding of the bytes of a text, and how many of them are its byte order mark.

    UTF-8, UTF-16 and UTF-32 have a byte order mark, UTF-16 without one has zero bytes. What is not UTF-8 either is
    Windows-1252, which spreadsheet programs write in western Europe and America.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return encoding, len(mark)
    zeros = [raw[parity:1000:2].count(0) for parity in (0, 1)]
    if max(zeros) > min(len(raw), 1000) // 4:
        return ("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"), 0
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "windows-1252", 0
    return "utf-8", 0


def decode_text(raw: bytes) -> str:
    """Return the text of a file in any encoding of ``detect_encoding``; raises UnicodeDecodeError if its bytes do not fit."""
    encoding, length = detect_encoding(raw)
    if encoding == "windows-1252":  # five of its bytes stand for no character; they are kept
        return raw.decode("latin-1").translate(_WINDOWS_1252)
    return raw[length:].decode(encoding)


def read_csv_table(path: Path, known: Sequence[str], is_file_name: Callable[[str], bool]) -> CsvTable:
    """Read a CSV; ``known`` are the columns by which its delimiter is found, of which the second holds file names.

    Of a CSV that is not UTF-8, its file names decide: it is read as UTF-8 with other bytes in it (names on disk need not be
    text), Windows-1252 or Mac OS Roman, the first in which ``is_file_name`` is true of a name that is not ASCII. If it is of
    none, lines that end as on old Macs mean Mac OS Roman, others Windows-1252. Raises CeflError for a file that is no CSV.
    """
    raw = path.read_bytes()
    workbook = next((kind for start, kind in _WORKBOOKS.items() if raw.startswith(start)), None)
    if workbook:
        raise CeflError(f"{path}: {workbook}, not a CSV; save it as CSV UTF-8 and give that file")
    if detect_encoding(raw)[0] == "windows-1252":
        text, roman = decode_text(raw), raw.decode("mac-roman")
        for reading in (raw.decode("utf-8", "surrogateescape"), text, roman):
            table = _parse(path, reading, known)
            if any(not cell.isascii() and is_file_name(cell) for cell in table.column(known[1])):
                return table
        return _parse(path, roman if b"\r" in raw and b"\n" not in raw else text, known)
    try:
        text = decode_text(raw)
    except UnicodeDecodeError as error:
        raise CeflError(
            f"{path}: not readable as {error.encoding} text ({error.reason}); save it as CSV UTF-8"
        ) from None
    return _parse(path, text, known)


def _parse(path: Path, text: str, known: Sequence[str]) -> CsvTable:
    declared = _SEP_LINE.match(text)
    body = text[declared.end() :] if declared else text
    delimiter = declared[1] if declared else _find_delimiter(body, known)
    reader = _reader(body, delimiter)
    rows, lines, line = [], [], 1
    try:
        for row in reader:
            if row and (row[0].strip() or any(map(str.strip, row))):
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        first = line + bool(declared)
        raise CeflError(
            f"{path}: not a valid CSV file: line {first}: {error}; close every quote, and write a quote in a value twice"
        ) from None
    if not rows:
        raise CeflError(
            f"{path}: not a valid CSV file: it is empty; write a header ({','.join(known)}) and a line per video"
        )
    header = [cell.lstrip("\ufeff").strip().lower() for cell in rows.pop(0)]
    lines = [number + bool(declared) for number in lines[1:]]
    while header and not header[-1]:
        header.pop()
    width = len(header)
    for row, number in zip(rows, lines, strict=True):
        if len(row) != width:
            extra = [cell for cell in row[width:] if cell.strip()]
            if extra:
                raise CeflError(
                    f"{path}: line {number}: {len(row)} values, but the header has {width} columns; a value that contains "
                    f'{_name(delimiter)} must be in quotes, e.g. "a{delimiter}b.mp4"'
                )
            row[width:] = []
            row += [""] * (width - len(row))
    return CsvTable(header, rows, lines, delimiter)


def _find_delimiter(text: str, known: Sequence[str]) -> str:
    """Return the delimiter under which the header has the most known columns, or else the most columns."""

    def score(delimiter: str) -> tuple[int, int]:
        try:
            header = next(filter(any, _reader(text[:_MAX_HEADER], delimiter)), [])
        except csv.Error:
            return (-1, -1)
        return len({cell.lstrip("\ufeff").strip().lower() for cell in header} & set(known)), len(header)

    return max(DELIMITERS, key=score)


def _reader(text: str, delimiter: str):
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)


def _name(delimiter: str) -> str:
    return {",": "a comma", ";": "a semicolon", "\t": "a tab"}.get(delimiter, delimiter)

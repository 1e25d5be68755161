"""CSV of spreadsheet programs: whatever Python's csv module writes in a dialect and an encoding is read back equal."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.manifest.csv_table import decode_text, read_csv_table
from ceflpipe.stages.manifest.manifest import read_manifest

KNOWN = ("id", "path", "label")
UTF8 = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=10).map(str.strip)
WESTERN = st.text(st.characters(codec="cp1252", exclude_categories=("Cc",)), max_size=10).map(str.strip)
DIALECTS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from([",", ";", "\t", "|"]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
        "lineterminator": st.sampled_from(["\n", "\r\n", "\r"]),
    }
)


def write_csv(rows, dialect, *, declared=False, empty_columns=0):
    """Return rows as text; ``declared``: with Excel's line sep=, ``empty_columns``: with as many delimiters at each end."""
    text = io.StringIO(newline="")
    if declared:
        text.write(f"sep={dialect['delimiter']}{dialect['lineterminator']}")
    csv.writer(text, **dialect).writerows([*row, *[""] * empty_columns] for row in rows)
    return text.getvalue()


def read_bytes(folder, raw):
    path = folder / "m.csv"
    path.write_bytes(raw)
    return read_csv_table(path, KNOWN, lambda name: False)


def check_round_trip(folder, names, dialect, encoding, declared, empty_columns):
    """The first cell is never blank, since blank rows are no rows."""
    rows = [[f"v{number}", name, name[::-1].strip()] for number, name in enumerate(names)]
    text = write_csv([KNOWN, *rows], dialect, declared=declared, empty_columns=empty_columns)
    table = read_bytes(folder, text.encode(encoding))
    assert table.delimiter == dialect["delimiter"]
    assert [table.column(name) for name in KNOWN] == [list(column) for column in zip(*rows, strict=True)]


@given(st.lists(TEXTS, min_size=1, max_size=5), DIALECTS, st.sampled_from(UTF8), st.booleans(), st.integers(0, 3))
@settings(max_examples=300)
def test_reading_returns_what_the_csv_module_wrote(tmp_path_factory, names, dialect, encoding, declared, empty_columns):
    if encoding.endswith("e"):  # without a mark, UTF-16 is detected by its zero bytes: text of one alphabet
        names = [name.encode("ascii", "ignore").decode().strip() for name in names]
    check_round_trip(tmp_path_factory.mktemp("m"), names, dialect, encoding, declared, empty_columns)


@given(st.lists(WESTERN, min_size=1, max_size=5), DIALECTS, st.booleans())
@settings(max_examples=150)
def test_windows_1252_is_detected_by_bytes_that_are_not_utf8(tmp_path_factory, names, dialect, declared):
    names = [*names, "José.mp4"]
    if dialect["lineterminator"] == "\r":  # the sign of an old Mac
        dialect |= {"lineterminator": "\n"}
    check_round_trip(tmp_path_factory.mktemp("m"), names, dialect, "cp1252", declared, 0)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "mac-roman"])
@pytest.mark.parametrize("name", ["José.mp4", "Jürgen Äß.mp4", "naïve – ñandú.mp4"])
def test_the_names_of_files_decide_the_encoding(tmp_path, encoding, name):
    """Excel on a Mac writes Mac OS Roman, in which other letters have the bytes of Windows-1252."""
    (tmp_path / name).touch()
    (tmp_path / "m.csv").write_bytes(f"path,label,subject\r\n{name},fear,Zoë\r\n".encode(encoding))
    (entry,) = read_manifest(tmp_path / "m.csv").entries
    assert (entry.path, entry.subject) == (name, "Zoë")


def test_lines_that_end_as_on_old_macs_mean_mac_os_roman(tmp_path):
    for ending, encoding in (("\r", "mac-roman"), ("\r\n", "cp1252"), ("\n", "cp1252")):
        table = read_bytes(tmp_path, ending.join(["id,path,label", "v,a.mp4,Überraschung", ""]).encode(encoding))
        assert table.column("label") == ["Überraschung"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("sep=;\r\nid;path;label\r\nv;José.mp4;fear\r\n", "cp1252"),  # Excel, German
        ("id;path;label\r\nv;José.mp4;fear\r\n;;\r\n;;\r\n", "utf-8-sig"),  # rows that were emptied
        ("id\tpath\tlabel\r\nv\tJosé.mp4\tfear\r\n", "utf-16"),  # Excel's Unicode Text
        ('"sep=,"\nid,path,label,,\nv,José.mp4,fear,,\n', "utf-8"),
        ("id,path,label\nv,José.mp4,fear,\n", "utf-8"),  # a comma at the end of the lines, not of the header
        ('\n\n"id", "path", "label"\n"v", "José.mp4", "fear"\n', "utf-8"),
        ("note,id,path,label\nx;y;z,v,José.mp4,fear\n", "utf-8"),
        ("id;path;label;my, note\nv;José.mp4;fear;a, b, c\n", "utf-8"),
    ],
)
def test_lists_of_spreadsheet_programs(tmp_path, text, encoding):
    (tmp_path / "m.csv").write_bytes(text.encode(encoding))
    (entry,) = read_manifest(tmp_path / "m.csv").entries
    assert (entry.id, entry.path, entry.label) == ("v", "José.mp4", "fear")


def test_problems_name_the_line_of_the_file(tmp_path):
    text = 'sep=;\n\npath;label;note\na.mp4;fear;"two\nlines"\n;;\nb.mp4;nothing;\n'
    (tmp_path / "m.csv").write_text(text)
    line = text.splitlines().index("b.mp4;nothing;") + 1
    with pytest.raises(CeflError, match=f"line {line}: unknown label 'nothing'"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"PK\x03\x04....", "a workbook .*save it as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0....", "a workbook .*save it as CSV UTF-8"),
        (b"\xff\xfep\0a", "not readable as utf-16-le text .*save it as CSV UTF-8"),
        (b"", "it is empty; write a header"),
        (b"\n  \n", "it is empty; write a header"),
    ],
)
def test_what_is_no_csv_is_refused_with_the_cure(tmp_path, raw, message):
    with pytest.raises(CeflError, match=message):
        read_bytes(tmp_path, raw)


@given(st.binary(max_size=40))
@settings(max_examples=300)
def test_any_bytes_are_text_or_refused(raw):
    try:
        decode_text(raw)
    except UnicodeDecodeError:
        assert raw[:2] in (b"\xff\xfe", b"\xfe\xff") or raw.startswith((b"\xef\xbb\xbf", b"\0\0")) or b"\0" in raw


def test_a_folder_is_no_list(tmp_path):
    with pytest.raises(CeflError, match="a folder, not a CSV; list its videos with ceflpipe manifest --folder"):
        read_manifest(tmp_path)

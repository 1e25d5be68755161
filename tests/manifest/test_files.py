"""File-system walking and annotation files: no video is opened, link cycles end, XML and lists are not trusted."""

import builtins
import io
import os
from pathlib import Path

import pytest
from helpers.dataset_trees import create_tree, make_source, scan

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.manifest.annotations import read_lines, read_names
from ceflpipe.stages.manifest.files import (
    VIDEO_EXTENSIONS,
    describe_skipped,
    expand_video_paths,
    find_files,
    find_folders,
    find_videos,
    has_image,
    list_folder,
    natural_key,
    skip_nested_folder,
    walk,
)
from ceflpipe.stages.manifest.loaders import folders
from ceflpipe.stages.manifest.safe_xml import XMLError, parse_elements
from ceflpipe.stages.manifest.splits import block_folds, round_robin_folds

MANY = {
    "afew": "{Train,Val}/{Angry,Happy}/{0001..1000}.avi",
    "bu4dfe": "F{001..058}/{Angry,Disgust,Fear,Happy,Sad,Surprise}/{000..009}.jpg",
    "caer": "{train,test}/{Anger,Sad}/{0001..1000}.avi",
    "cremad": "VideoFlash/{1001..1091}_{DFA,IEO}_{ANG,DIS,FEA,HAP,NEU,SAD}_{LO,HI}.flv",
    "dfew": "Clip/original/{00001..16000}.mp4\ntest/set_1.csv = video_name,label|" + "".join(f"{n},{n % 7 + 1}|" for n in range(1, 11698)),
    "enterface": "subject {1..44}/{anger,fear}/sentence {1..5}/s_an_1.avi",
    "ravdess": "Actor_{01..24}/02-01-0{1..8}-01-0{1..2}-0{1..2}-{01..24}.mp4",
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_listing_thousands_of_videos_opens_none(tmp_path, monkeypatch, name):
    """Oracle: every way to open a file is recorded, and few more folders are listed than exist."""
    source = make_source(name, create_tree(tmp_path / "data", MANY[name]))
    folders = sum(1 for _ in os.walk(tmp_path / "data"))
    opened, listed = [], []
    real_open, real_scandir = io.open, os.scandir

    def recording_open(file, *args, **kwargs):
        opened.append(Path(str(file)).suffix)
        return real_open(file, *args, **kwargs)

    def recording_scandir(folder):
        listed.append(folder)
        return real_scandir(folder)

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", recording_open)
    monkeypatch.setattr(os, "scandir", recording_scandir)
    monkeypatch.setattr("cv2.VideoCapture", lambda *_: pytest.fail("a video was opened"))
    result = source.scan()
    assert len(result.entries) > 300
    assert set(opened) <= {".csv", ".txt"}
    assert len(listed) < 8 * folders + 20


def test_dfew_with_sixteen_thousand_clips(tmp_path):
    result = scan("dfew", create_tree(tmp_path, MANY["dfew"]))
    assert len(result.entries) == 11697
    assert len(result.skipped) == 16000 - 11697
    assert not any("(Clip" in name for name in result.missing)


def test_natural_order_is_total():
    names = ["10.jpg", "2.jpg", "02.jpg", "a2b10", "a2b9", "A2b9", "a", "a1", "", "1"]
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)
    assert [n for n in sorted(names, key=natural_key) if n.endswith("jpg")] == ["02.jpg", "2.jpg", "10.jpg"]
    assert sorted(["a1", "a"], key=natural_key) == ["a", "a1"]


def test_hidden_files_and_system_folders_are_skipped(tmp_path):
    create_tree(tmp_path, "a/.hidden/1.avi\na/._1.avi\na/1.AVI\na/__MACOSX/1.avi\na/b/2.png\na/b/._2.png\nc/._1.png")
    assert list_folder(tmp_path / "a").videos() == ("1.AVI",)
    assert list_folder(tmp_path / "a").folders == ("b",)
    assert has_image(tmp_path / "a/b")
    assert not has_image(tmp_path / "c")


def test_links_are_followed_once(tmp_path):
    create_tree(tmp_path, "real/Happy/1.avi")
    (tmp_path / "real/round").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "real")
    visited = [folder.name for folder, _ in walk(tmp_path)]
    assert sorted(visited) == sorted([tmp_path.name, "other", "Happy"]) or sorted(visited) == sorted(
        [tmp_path.name, "real", "Happy"]
    )


def test_a_link_out_of_the_root_needs_permission(tmp_path):
    create_tree(tmp_path, "elsewhere/1.avi\ndata/Val/Happy/2.avi")
    (tmp_path / "data/Train").mkdir()
    (tmp_path / "data/Train/Happy").symlink_to(tmp_path / "elsewhere")
    source = make_source("afew", tmp_path / "data")
    source.write(source.scan())
    manifest = source.manifest()
    with pytest.raises(CeflError, match="--allow-external-paths"):
        [manifest.video_path(entry) for entry in manifest.entries]


def test_search_ends_at_numbered_folders_and_at_matches(tmp_path):
    create_tree(tmp_path, "x/1/target/\nx/a/target/target/\nx/target/\na/b/c/d/e/f/g/target/")
    result = find_folders(tmp_path, lambda folder, listing: folder.name == "target")
    assert [str(f.relative_to(tmp_path)) for f in result] == ["x/target", "x/a/target"]


def test_nested_folders_of_the_same_name(tmp_path):
    create_tree(tmp_path, "Sad/sad/SAD/1.avi\nHappy/1.avi")
    assert skip_nested_folder(tmp_path / "Sad").relative_to(tmp_path).as_posix() == "Sad/sad/SAD"
    assert skip_nested_folder(tmp_path / "Happy").name == "Happy"


XML = {
    "missing": (None, "no such file"),
    "empty": ("", "not XML"),
    "truncated": ("<a><b>", "not XML"),
    "entities": ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "it declares entities"),
    "parameter entities": ('<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><a/>', "it declares entities"),
    "external entity": ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "it declares entities"),
    "enormous": ("<a>" + " " * (5 << 20) + "</a>", "too large"),
}


@pytest.mark.parametrize("case", XML)
def test_unsafe_xml_is_refused(tmp_path, case):
    text, message = XML[case]
    if text is not None:
        (tmp_path / "x.xml").write_text(text)
    with pytest.raises(XMLError, match=message):
        parse_elements(tmp_path / "x.xml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_xml_of_any_encoding_case_and_namespace(tmp_path, encoding):
    text = '<!DOCTYPE s SYSTEM "nowhere.dtd"><m:S xmlns:m="x"><m:Track View=" 2 "/></m:S>'
    (tmp_path / "x.xml").write_text(text, encoding=encoding)
    assert parse_elements(tmp_path / "x.xml") == [("s", {"xmlns:m": "x"}), ("track", {"view": "2"})]


def test_text_lists(tmp_path):
    create_tree(tmp_path, "a.txt = # a remark|one, two;three\tfour||  five # remark|")
    assert read_lines(tmp_path / "a.txt") == [["one", "two", "three", "four"], ["five"]]
    assert read_names(tmp_path, "a.txt", "k") == {"one", "five"}
    assert read_names(tmp_path, "", "k") == set()
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CeflError, match=r"b.txt: not a readable text list"):
        read_lines(tmp_path / "b.txt")
    with pytest.raises(CeflError, match=r"c.txt: no name in it"):
        read_names(create_tree(tmp_path, "c.txt = # nothing|"), "c.txt", "k")


def test_block_folds_and_round_robin_folds():
    assert block_folds("abcde", (2, 3)) == dict(zip("abcde", "11222", strict=True))
    assert round_robin_folds("abcde", 2) == dict(zip("abcde", "12121", strict=True))
    with pytest.raises(ValueError, match="zip"):
        block_folds("abc", (1, 1))


def test_files_folders_and_patterns(tmp_path):
    for name in ("b/10.mp4", "b/2.mp4", "a.mp4", "images/1.jpg", "b/notes.txt", "take[1].mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    paths = [
        str(path.relative_to(tmp_path))
        for path in expand_video_paths(
            [tmp_path / "b", tmp_path / "a.mp4", tmp_path / "*.mp4", tmp_path / "gone.mp4"]
        ).videos
    ]
    assert paths == ["b/2.mp4", "b/10.mp4", "a.mp4", "take[1].mp4", "gone.mp4"]
    assert expand_video_paths([tmp_path / "images"]).videos == [tmp_path / "images"]
    assert expand_video_paths([tmp_path / "take[1].mp4"]).videos == [tmp_path / "take[1].mp4"]
    (tmp_path / "empty").mkdir()
    for pattern, message in (("empty", "no video in this folder"), ("*.avi", "nothing matches")):
        with pytest.raises(CeflError, match=message):
            expand_video_paths([tmp_path / pattern])


def names_of(listing, root):
    return [path.relative_to(root).as_posix() for path in listing.videos]


def test_images_next_to_videos_are_skipped(tmp_path):
    """Oracle: the videos by hand. A folder of images alone is one, also beside folders of them."""
    create_tree(
        tmp_path,
        """
        films/a.mp4
        films/{cover,poster}.jpg
        films/thumbnails/{a,b}.jpg
        above/cover.jpg
        above/season/1.mts
        images/clip{1,2}/{1,2}.png
        images/cover.png
        nested/{1,2}.png
        nested/crops/{1,2}.png
        single/1.jpg
        """,
    )
    listing = find_videos(tmp_path)
    assert names_of(listing, tmp_path) == [
        "above/season/1.mts", "films/a.mp4", "images/clip1", "images/clip2", "nested", "nested/crops", "single",
    ]  # fmt: skip
    covers = {
        "films/cover.jpg",
        "films/poster.jpg",
        "films/thumbnails/a.jpg",
        "films/thumbnails/b.jpg",
        "above/cover.jpg",
    }
    skipped = {path.relative_to(tmp_path).as_posix(): reason for path, reason in listing.skipped}
    assert skipped == dict.fromkeys([*covers, "images/cover.png"], "an image beside videos")
    assert describe_skipped(listing.skipped, examples=1)[0].startswith("skipped 6: an image beside videos (")


def test_what_is_passed_over_is_listed(tmp_path):
    create_tree(tmp_path, "a/1.mp4\na/notes.txt\na/data.CSV\na/README\na/Thumbs.db\na/.hidden\na/.DS_Store")
    (tmp_path / "a/gone.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a/round.mp4").symlink_to(tmp_path / "a/round.mp4")
    os.mkfifo(tmp_path / "a/pipe.mp4")
    listing = find_videos(tmp_path)
    assert names_of(listing, tmp_path) == ["a/1.mp4"]
    assert sorted((path.name, reason) for path, reason in listing.skipped) == [
        ("README", "a name without an ending"),
        ("data.CSV", "the ending .csv is not that of a video"),
        ("gone.mp4", "a link that leads nowhere"),
        ("notes.txt", "the ending .txt is not that of a video"),
        ("pipe.mp4", "neither a file nor a folder"),
        ("round.mp4", "a link that leads nowhere"),
    ]
    assert list_folder(tmp_path / "a").videos() == ("1.mp4",)


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    create_tree(tmp_path, "elsewhere/anna/1.mp4\nelsewhere/anna/2.jpg\ndata/Happy/0.mp4\ndata/pool/3.mp4")
    data = tmp_path / "data"
    (data / "Sad").symlink_to(tmp_path / "elsewhere")
    (data / "Fear").symlink_to(data / "pool")
    (data / "Happy/round").symlink_to(data)
    (tmp_path / "elsewhere/anna/back").symlink_to(data)
    result = folders.scan(data)
    assert sorted((entry.path, entry.label) for entry in result.entries) == [
        ("Fear/3.mp4", "fear"), ("Happy/0.mp4", "happiness"), ("Sad/anna/1.mp4", "sadness"),
    ]  # fmt: skip
    assert ("pool/3.mp4", "no folder above it names an expression") in result.skipped
    assert ("Happy/round", "a link to a folder that is searched anyway") in result.skipped
    assert len(names_of(find_videos(data), data)) == 3


def test_folders_that_link_to_each_other_are_searched_once(tmp_path):
    """Twelve folders with links to all: walks without a guard would take 12! steps."""
    for number in range(12):
        create_tree(tmp_path, f"{number}/{number}.mp4")
    for number in range(12):
        for other in range(12):
            (tmp_path / f"{number}/to{other}").symlink_to(tmp_path / str(other))
    assert len(find_videos(tmp_path).videos) == 12
    assert len(find_folders(tmp_path, lambda folder, listing: bool(listing.videos()))) <= 12


def test_files_behind_several_links_are_listed_once(tmp_path):
    create_tree(tmp_path, "a/1.csv\nb/2.csv\nc/d/3.csv")
    for number, folder in enumerate(("a", "b", "c/d")):
        (tmp_path / folder / "up").symlink_to(tmp_path)
        (tmp_path / f"x{number}").symlink_to(tmp_path / folder)
    assert sorted(path.name for path in find_files(tmp_path, (".csv",))) == ["1.csv", "2.csv", "3.csv"]
    assert len(find_folders(tmp_path, lambda folder, listing: "1.csv" in listing.files)) == 1


@pytest.mark.parametrize(
    "extension", [".gif", ".3gp", ".3g2", ".mts", ".m2ts", ".ts", ".ogv", ".vob", ".asf", ".MTS", ".dv", ".swf", ".dvd"]
)
def test_endings_that_ffmpeg_reads(tmp_path, extension):
    create_tree(tmp_path, f"Happy/film{extension}")
    assert [entry.id for entry in folders.scan(tmp_path).entries] == ["Happy/film"]
    assert names_of(expand_video_paths([tmp_path]), tmp_path) == [f"Happy/film{extension}"]
    assert len(set(VIDEO_EXTENSIONS)) == len(VIDEO_EXTENSIONS)


def test_a_pattern_takes_videos_and_searches_folders(tmp_path):
    create_tree(tmp_path, "a.mts\nb.gif\nnotes.txt\nsub/c.mp4\nodd.xyz")
    listing = expand_video_paths([tmp_path / "*"])
    assert names_of(listing, tmp_path) == ["a.mts", "b.gif", "sub/c.mp4"]
    assert sorted(path.name for path, _ in listing.skipped) == ["notes.txt", "odd.xyz"]
    assert names_of(expand_video_paths([tmp_path / "*.xyz"]), tmp_path) == ["odd.xyz"]
    create_tree(tmp_path, "papers/{1,2}.pdf")
    with pytest.raises(
        CeflError, match=r"no video in this folder.*\n  skipped 2: the ending .pdf is not that of a video"
    ):
        expand_video_paths([tmp_path / "papers"])


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    create_tree(tmp_path, "a/1.mp4\nb/2.mp4")
    real_scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return real_scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CeflError, match="b: cannot be read: Permission denied; make it readable"):
        find_videos(tmp_path)


def test_text_lists_of_any_encoding(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "a.txt").write_bytes("José;one\r\nb two".encode(encoding))
        assert read_lines(tmp_path / "a.txt") == [["José", "one"], ["b", "two"]]

"""Ownership of outputs: only what ceflpipe wrote, and nobody edited, is replaced."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.ownership import (
    RUN_FOLDER,
    SUMS_FILE,
    check_files,
    check_folder,
    foreign_files,
    format_sum,
    is_recorded,
    read_sums,
    write_owned,
    write_owned_folder,
    write_owned_text,
)


def write_folder(path, content="{}", force=False):
    with write_owned_folder(path, "--out", RUN_FOLDER, force=force) as folder:
        (folder / "run.json").write_text(content)
        (folder / "predictions").mkdir()
        (folder / "predictions/fold-1.csv").write_text("id\n")


def test_a_file_of_ours_may_be_replaced_until_it_is_edited(tmp_path):
    path = tmp_path / "table.csv"
    for text in ("a\n", "b\n", "a\n"):
        assert check_files([path], "--out") == ""
        write_owned_text(path, text)
        assert is_recorded(path)
    path.write_text("by hand\n")
    with pytest.raises(CeflError, match=r"table\.csv: exists.*give --out another path.*--force"):
        check_files([path], "--out")
    assert "table.csv" in check_files([path], "--out", force=True)


def test_a_kill_before_the_file_is_replaced_leaves_the_old_one_ours(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    write_owned_text(path, "old\n")

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ceflpipe.cache.atomic.os.replace", kill)
    with pytest.raises(KeyboardInterrupt):
        write_owned_text(path, "new\n")
    assert path.read_text() == "old\n"
    assert is_recorded(path)
    assert sorted(os.listdir(tmp_path)) == [SUMS_FILE, "table.csv"]


def test_a_line_of_checksums_cut_short_by_a_kill_loses_no_other(tmp_path):
    for name in ("a", "b"):
        write_owned_text(tmp_path / name, name)
    sums = tmp_path / SUMS_FILE
    sums.write_bytes(sums.read_bytes()[:-20])
    assert is_recorded(tmp_path / "a")
    assert not is_recorded(tmp_path / "b")
    write_owned_text(tmp_path / "c", "c")
    assert is_recorded(tmp_path / "c")


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40))
def test_checksums_are_read_back_for_every_name(name):
    with tempfile.TemporaryDirectory() as folder:
        sums = Path(folder) / "sums"
        sums.write_bytes((format_sum("0" * 64, name) + format_sum("1" * 64, f"{name}.csv")).encode())
        assert read_sums(sums) == {name: {"0" * 64}, f"{name}.csv": {"1" * 64}}


def test_checksums_have_the_format_of_sha256sum(tmp_path):
    for name in ("a b.csv", "back\\slash", "new\nline", "é"):
        write_owned_text(tmp_path / name, name)
    done = subprocess.run(["sha256sum", "--check", "--strict", SUMS_FILE], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("alias", ["same", "link", "hard link", "another spelling"])
def test_an_input_is_never_a_target_not_even_with_force(tmp_path, alias):
    video = tmp_path / "video.mp4"
    video.write_text("video")
    target = tmp_path / "out.mp4"
    if alias == "link":
        target.symlink_to(video)
    elif alias == "hard link":
        os.link(video, target)
    else:
        target = video if alias == "same" else tmp_path / "x" / ".." / "video.mp4"
        (tmp_path / "x").mkdir()
    with pytest.raises(CeflError, match="is the input"):
        check_files([target], "--out", inputs=[video], force=True)


def test_targets_that_cannot_be_written_are_named_before_work_begins(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "file/x.csv", "is not a folder"),
        (tmp_path / "folder", "is a folder; give --out the name of a file"),
        (tmp_path / ("n" * 256), "longer than 255 bytes"),
        (tmp_path / ("n" * 256) / "x.csv", "longer than 255 bytes"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "link", "not a regular file"),
    ):
        with pytest.raises(CeflError, match=message):
            check_files([path], "--out")
    with pytest.raises(CeflError, match="MB are free"):
        check_files([tmp_path / "x.csv"], "--out", required_bytes=1 << 60)
    with pytest.raises(CeflError, match="/proc: cannot be written"):
        check_files([Path("/proc/x.csv")], "--out")
    with pytest.raises(CeflError, match="is a file; give --out the name of a folder"):
        check_folder(tmp_path / "file", "--out", RUN_FOLDER)
    monkeypatch.chdir(tmp_path / "folder")
    with pytest.raises(CeflError, match="working folder"):
        check_folder(tmp_path / "folder", "--out", RUN_FOLDER)
    assert not list((tmp_path / "folder").iterdir())


def test_a_name_as_long_as_names_can_be_is_written_and_cleaned_up(tmp_path):
    path = tmp_path / ("n" * 251 + ".csv")
    with write_owned(path) as temporary:
        temporary.write_text("x")
    with pytest.raises(ZeroDivisionError), write_owned(path):
        _ = 1 / 0
    assert path.read_text() == "x"
    assert is_recorded(path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_of_the_user_is_refused_and_one_of_ours_is_replaced(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_folder(run)  # an empty folder
    write_folder(run, '{"a": 1}')
    assert foreign_files(run, RUN_FOLDER) == []
    for name in ("notes.txt", "predictions/mine.csv"):
        (run / name).write_text("mine")
        with pytest.raises(CeflError, match=f"holds {name}, which ceflpipe did not write"):
            check_folder(run, "--out", RUN_FOLDER)
        (run / name).unlink()
    (run / ".gitignore").write_text("/run.json\n")  # DVC's
    write_folder(run, '{"a": 2}')
    assert (run / ".gitignore").read_text() == "/run.json\n"
    (run / "run.json").write_text("edited")
    with pytest.raises(CeflError, match=r"holds run\.json"):
        write_folder(run)
    assert (run / "run.json").read_text() == "edited"


def test_force_keeps_the_files_of_the_user(tmp_path):
    thesis = tmp_path / "thesis"
    (thesis / "chapters").mkdir(parents=True)
    (thesis / "chapters/1.tex").write_text("years of work")
    (thesis / "latest").symlink_to("chapters/1.tex")
    os.symlink("chapters", thesis / "all")
    with pytest.raises(CeflError, match=r"all, chapters/1\.tex, latest"):
        write_folder(thesis)
    assert "keeping" in check_folder(thesis, "--out", RUN_FOLDER, force=True)
    write_folder(thesis, force=True)
    assert (thesis / "chapters/1.tex").read_text() == "years of work"
    assert os.readlink(thesis / "latest") == "chapters/1.tex"
    assert os.readlink(thesis / "all") == "chapters"
    assert set(read_sums(thesis / "SHA256SUMS")) == {"run.json", "predictions/fold-1.csv"}


def test_checksums_of_downloads_do_not_make_a_folder_a_run(tmp_path):
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / "data.zip").write_text("zip")
    (folder / "SHA256SUMS").write_text(format_sum(sha256_of(folder / "data.zip"), "data.zip"))
    with pytest.raises(CeflError, match=r"holds SHA256SUMS, data\.zip"):
        check_folder(folder, "--out", RUN_FOLDER)


def test_a_linked_folder_is_written_where_it_is(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    write_folder(tmp_path / "run")
    write_folder(tmp_path / "run")
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "disk/run.json").is_file()

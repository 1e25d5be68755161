"""Thousands of broken files, the short version; tests/fuzz/run.py has the long one. A finding is repeated by its seed."""

import contextlib
import importlib.util
import sys

import pytest
from helpers.cli import ROOT

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.manifest.manifest import read_manifest

sys.path.insert(0, str(ROOT / "tests/fuzz"))
specification = importlib.util.spec_from_file_location("fuzz_run", ROOT / "tests/fuzz/run.py")
fuzz = importlib.util.module_from_spec(specification)
specification.loader.exec_module(fuzz)


@pytest.mark.slow
def test_broken_videos_are_refused_or_read_and_harm_no_other(tmp_path, random_encoder):
    came = fuzz.fuzz_videos(tmp_path, random_encoder, 200, 1, lambda line: None)
    assert sum(came.values()) == 200
    assert len(came) > 1  # some could be read and some not


@pytest.mark.slow
def test_broken_files_are_refused_or_read_as_they_were_written(tmp_path, random_encoder):
    with contextlib.chdir(tmp_path):
        came = fuzz.fuzz_files(tmp_path, random_encoder, 60, 1)
    for kind in ("manifest", "configuration", "cache", "encoder", "checkpoint", "run.json", "weights.safetensors"):
        assert came[f"{kind} refused"] > 0


def test_a_yaml_tag_that_names_a_class_is_refused(tmp_path, monkeypatch):
    from ceflpipe.pipeline.config import load_dataset_config

    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for number, tag in enumerate(
        ("!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "!evil x")
    ):
        (tmp_path / f"configs/t{number}.yaml").write_text(f"title: {tag}\n")
        with pytest.raises(CeflError, match="not YAML that can be read"):
            load_dataset_config(f"t{number}")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffid,path,label\nv,v.mp4,fear\n",  # a BOM, as Excel writes it
        "id,path,label\r\nv,v.mp4,fear\r\n",
        'id,path,label\n"v","v.mp4","fear"\n',
        "Label,PATH,Id\nfear,v.mp4,v\n",
        "id,path,label\nv, v.mp4 , fear \n\n\n",
    ],
)
def test_lists_as_other_programs_write_them(tmp_path, text):
    (tmp_path / "m.csv").write_bytes(text.encode())
    (row,) = read_manifest(tmp_path / "m.csv").entries
    assert (row.id, row.path, row.label) == ("v", "v.mp4", "fear")


@pytest.mark.slow
def test_a_list_of_a_million_videos(tmp_path):
    lines = "".join(f"v{i},d{i // 1000}/{i}.mp4,fear,S{i % 500}\n" for i in range(1_000_000))
    (tmp_path / "m.csv").write_text(f"id,path,label,subject\n{lines}")
    rows = read_manifest(tmp_path / "m.csv").entries
    assert len(rows) == 1_000_000
    assert rows[-1].path == "d999/999999.mp4"

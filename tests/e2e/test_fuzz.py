"""Broken files, a short run of tests/fuzz/run.py; a failure is reproduced by its seed."""

import contextlib
import importlib.util
import sys

import pytest
from helpers.run_cli import ROOT

from ceflpipe.cache.errors import CeflError
from ceflpipe.pipeline.config import load_dataset_config
from ceflpipe.stages.manifest.manifest import read_manifest

sys.path.insert(0, str(ROOT / "tests/fuzz"))
spec = importlib.util.spec_from_file_location("fuzz_run", ROOT / "tests/fuzz/run.py")
fuzz = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = fuzz  # its dataclasses look for their module
spec.loader.exec_module(fuzz)


@pytest.mark.slow
def test_broken_videos_are_refused_or_read_and_affect_no_other(tmp_path, random_encoder):
    counts = fuzz.fuzz_videos(tmp_path, random_encoder, 200, 1, lambda line: None)
    assert sum(counts.values()) == 200
    assert len(counts) > 1  # some are read and some refused


@pytest.mark.slow
def test_broken_files_are_refused_or_read_as_they_were_written(tmp_path, random_encoder):
    with contextlib.chdir(tmp_path):
        counts = fuzz.fuzz_files(tmp_path, random_encoder, 60, 1)
    for kind in ("manifest", "configuration", "cache", "encoder", "checkpoint", "run.json", "weights.safetensors"):
        assert counts[f"{kind} refused"] > 0


def test_a_yaml_tag_that_names_a_class_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for number, tag in enumerate(
        ("!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "!evil x")
    ):
        (tmp_path / f"configs/t{number}.yaml").write_text(f"title: {tag}\n")
        with pytest.raises(CeflError, match="not valid YAML"):
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
def test_manifests_of_other_programs_are_read(tmp_path, text):
    (tmp_path / "m.csv").write_bytes(text.encode())
    (entry,) = read_manifest(tmp_path / "m.csv").entries
    assert (entry.id, entry.path, entry.label) == ("v", "v.mp4", "fear")


@pytest.mark.slow
def test_a_manifest_of_a_million_videos_is_read(tmp_path):
    lines = "".join(f"v{i},d{i // 1000}/{i}.mp4,fear,S{i % 500}\n" for i in range(1_000_000))
    (tmp_path / "m.csv").write_text(f"id,path,label,subject\n{lines}")
    entries = read_manifest(tmp_path / "m.csv").entries
    assert len(entries) == 1_000_000
    assert entries[-1].path == "d999/999999.mp4"

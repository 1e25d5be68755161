"""Nothing finished is lost or redone unasked, failures are tried again when something could help, workers compute what is recorded."""

import errno
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import h5py
import pytest
import torch

from ceflpipe.cache.atomic import safe_name, sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import corrupted_videos, read_index, read_settings
from ceflpipe.stages import device as device_module
from ceflpipe.stages.encoder.weights import resnet18_backbone, write_encoder
from ceflpipe.stages.extract import extract_config, plan, tasks, video_reader
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_encoder, resolve_config
from ceflpipe.stages.extract.extractor import VideoJob
from ceflpipe.stages.extract.plan import parts_folder
from ceflpipe.stages.extract.shards import merge_shards
from ceflpipe.stages.extract.tasks import ExtractTask, ResolveTask, extract_task, resolve_task


@pytest.fixture
def config(random_encoder):
    return ExtractConfig(encoder=random_encoder, crop_size=32, precision="fp32", input="crops")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "x.h5"


def files_of(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): sha256_of(file) for file in folder.rglob("*") if file.is_file()}


def move_to_parts(cache: Path, name: str) -> Path:
    """Leave a cache of one video as a part file, as after a kill before packing."""
    part = parts_folder(cache) / f"{safe_name(name)}.h5"
    part.parent.mkdir(exist_ok=True)
    shutil.move(cache, part)
    return part


# ---- damage is content


def test_a_cache_that_is_open_for_writing_elsewhere_stops_the_run_and_stays(make_manifest, config, cache, tmp_path):
    extract_features(make_manifest("a"), config, cache)
    both, before = make_manifest("a", "b"), files_of(tmp_path)
    program = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as editor:
        editor.stdout.readline()
        with pytest.raises(CeflError, match="another program has it open for writing"):
            extract_features(both, config, cache)
        editor.kill()
    after = files_of(tmp_path)
    assert {name: after[name] for name in before if name != "x.h5"} == {n: before[n] for n in before if n != "x.h5"}
    assert set(after) == set(before)
    assert extract_features(both, config, cache).num_extracted == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ESTALE, errno.EIO, errno.ENOLCK])
@pytest.mark.parametrize("in_part", [False, True])
def test_an_error_of_the_system_touches_nothing(make_manifest, config, cache, tmp_path, monkeypatch, number, in_part):
    manifest = make_manifest("a")
    extract_features(manifest, config, cache)
    target = move_to_parts(cache, "a") if in_part else cache
    before, original = files_of(tmp_path), h5py.File

    def fail(name, *arguments, **keywords):
        if Path(name) == target:
            raise OSError(number, f"Unable to open file (errno = {number}, error message = '{os.strerror(number)}')")
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(h5py, "File", fail)
    with pytest.raises(CeflError, match="run the same command again"):
        extract_features(manifest, config, cache)
    assert files_of(tmp_path) == before


def test_damaged_caches_never_overwrite_each_other(make_manifest, config, cache, tmp_path):
    manifest = make_manifest("a")
    contents = [b"\x89HDF\r\n\x1a\n" + text for text in (b"first", b"second")]
    for content in contents:
        cache.write_bytes(content)
        extract_features(manifest, config, cache)
    assert [(tmp_path / f"x.h5.corrupted-{i}").read_bytes() for i in (1, 2)] == contents


def test_finished_parts_of_videos_that_the_list_does_not_name_are_kept(make_manifest, config, cache):
    extract_features(make_manifest("a"), config, cache)
    move_to_parts(cache, "a")
    extract_features(make_manifest("b"), config, cache)
    assert read_index(cache).id == ["b", "a"]
    assert not parts_folder(cache).exists()


def test_features_stay_while_their_source_cannot_be_read(make_manifest, config, cache, monkeypatch):
    """Also when the cache is written again, because there is a new video."""
    extract_features(make_manifest("a"), config, cache)
    both = make_manifest("a", "b")  # "a" has another time now, so that it is hashed again

    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(plan, "sha256_of", fail)
    result = extract_features(both, config, cache)
    assert result.failed == [("a", "unreadable", "cannot be read: Input/output error")]
    assert (result.num_extracted, read_index(cache).id) == (1, ["a", "b"])


# ---- failures


@pytest.mark.parametrize(
    ("function", "value", "reason"),
    [("decoder_version", "PyAV 99", "by PyAV "), ("stage_code", "2" * 16, "by other code of stage one (")],
)
def test_unreadable_videos_are_tried_again_when_decoder_or_code_have_changed_or_on_demand(
    make_manifest, config, cache, monkeypatch, function, value, reason
):
    manifest = make_manifest("a", "broken")
    (manifest.root / "broken.mp4").write_bytes(b"nothing" * 99)
    extract_features(manifest, config, cache)
    assert extract_features(manifest, config, cache).num_extracted == 0
    assert extract_features(manifest, config, cache, retry_failed=True).reasons == {"unreadable before": 1}
    monkeypatch.setattr(plan, function, lambda: value)
    result = extract_features(manifest, config, cache)
    assert result.num_extracted == 1
    assert next(iter(result.reasons)).startswith(f"unreadable before, {reason}")


def test_the_decoder_is_another_one_with_another_version_or_codec(monkeypatch):
    """FFmpeg of one version may be built with or without a codec, as with AV1."""
    before = video_reader.decoder_version()
    assert f"PyAV {av.__version__}" in before
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"av1"})
    assert video_reader.decoder_version() != before


# ---- a cache entry is what its fingerprint says


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"precision": "bf16"}}, "precision fp32, here bf16"),
        ({"config": {"device": "cuda"}, "build_on": "cpu"}, "device cuda, here cpu"),
        ({"code_hash": "0" * 16}, "code of stage one 0000000000000000, here"),
        ({"settings": {"detector": "retinaface"}}, "detector retinaface, here"),
        ({"settings": {"encoding_version": 0}}, "encoding_version 0, here"),
    ],
)
def test_a_worker_refuses_what_it_would_not_compute(make_manifest, config, tmp_path, monkeypatch, change, message):
    manifest = make_manifest("a")
    resolved = resolve_config(
        config.model_copy(update={"backend": "torch"})
    )  # OpenVINO has bf16 on some processors only
    job = VideoJob("a", manifest.video_path(manifest.entries[0]))
    if "build_on" in change:
        encoder = build_encoder(resolved.config)
        monkeypatch.setattr(tasks, "build_encoder", lambda *arguments: encoder)
    task = ExtractTask(
        (job,),
        resolved.config.model_copy(update=change.get("config", {})),
        replace(resolved.settings, **change.get("settings", {})),
        tmp_path / "parts",
        **({"code_hash": change["code_hash"]} if "code_hash" in change else {}),
    )
    with pytest.raises(CeflError, match=message):
        extract_task(task)
    assert not list(tmp_path.rglob("*.h5"))


def test_an_encoder_that_is_replaced_under_its_name_signs_with_its_own_hash_or_not_at_all(
    make_manifest, config, tmp_path
):
    encoder = tmp_path / "e.safetensors"
    shutil.copy(config.encoder, encoder)
    config = config.model_copy(update={"encoder": encoder})
    manifest, old = make_manifest("a"), resolve_config(config)
    job = VideoJob("a", manifest.video_path(manifest.entries[0]))
    extract_task(ExtractTask((job,), old.config, old.settings, tmp_path / "first"))
    stamp = encoder.stat()
    torch.manual_seed(1)
    write_encoder(tmp_path / "n.safetensors", resnet18_backbone().state_dict(), "random", "imagenet", {"source": "new"})
    encoder.write_bytes((tmp_path / "n.safetensors").read_bytes())
    os.utime(encoder, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    extract_config._build_encoder.cache_clear()  # another worker
    with pytest.raises(CeflError, match=f"{old.settings.encoder_sha256[:8]}… as the features on record"):
        extract_task(ExtractTask((job,), old.config, old.settings, tmp_path / "second"))
    assert not (tmp_path / "second").exists()
    new = resolve_config(config)
    assert new.settings.encoder_sha256 == sha256_of(encoder) != old.settings.encoder_sha256
    assert build_encoder(new.config, new.settings.encoder_sha256).sha256 == sha256_of(encoder)


def test_workers_of_other_code_are_refused_before_work_begins(config):
    with pytest.raises(CeflError, match="has other code of stage one"):
        resolve_task(ResolveTask(config, None, "0" * 16))
    assert resolve_task(ResolveTask(config, None)).settings == resolve_config(config).settings


def test_auto_is_resolved_where_the_work_is_done(make_manifest, config, cache):
    config, calls = config.model_copy(update={"precision": "auto", "device": "cuda"}), []

    def executor(function, jobs):
        """Resolve and compute as a machine with a GPU would, on this one."""
        for job in jobs:
            calls.append(function)
            yield function(replace(job, config=job.config.model_copy(update={"device": "cpu"})))

    extract_features(make_manifest("a"), config, cache, executor=executor, resolve_on_workers=True)
    assert calls == [resolve_task, extract_task]
    assert read_index(cache).device == ["cpu"]


def test_fp32_on_a_gpu_is_never_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    cuda = device_module.resolve_device("auto")
    assert cuda.type == "cuda"
    assert not device_module.uses_tf32(cuda)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert device_module.uses_tf32(cuda)


def test_a_worker_whose_gpu_has_turned_to_tf32_refuses(make_manifest, config, tmp_path, monkeypatch):
    """Any library in the process may turn it on, after the device was resolved."""
    manifest = make_manifest("a")
    resolved = resolve_config(config.model_copy(update={"backend": "torch"}))
    encoder = build_encoder(resolved.config)
    job = VideoJob("a", manifest.video_path(manifest.entries[0]))
    task = ExtractTask((job,), resolved.config, resolved.settings, tmp_path / "parts")
    tasks.check_worker(task, None, encoder)
    monkeypatch.setattr(encoder, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pytest.raises(CeflError, match="precision fp32, here tf32"):
        tasks.check_worker(task, None, encoder)


# ---- nothing costly is redone unasked


def test_other_settings_need_redo_also_for_videos_that_would_be_dropped(make_manifest, config, cache, tmp_path):
    extract_features(make_manifest("a", "b"), config, cache)
    before, other = cache.read_bytes(), config.model_copy(update={"crop_size": 48})
    with pytest.raises(CeflError, match=r"2 finished videos have other settings \(crop_size 32, now 48\).*--redo"):
        extract_features(make_manifest("a"), other, cache)
    assert cache.read_bytes() == before
    assert extract_features(make_manifest("a"), other, cache, dry_run=True).reasons == {
        "settings changed (crop_size 32, now 48)": 1
    }
    extract_features(make_manifest("a"), other, cache, redo="settings")
    assert (read_index(cache).id, read_settings(cache).crop_size) == (["a"], 48)
    assert (tmp_path / "x.h5.old-1").read_bytes() == before


def test_auto_takes_the_precision_of_the_cache_and_new_videos_extend_it(make_manifest, config, cache, monkeypatch):
    config = config.model_copy(update={"backend": "torch"})
    extract_features(make_manifest("a"), config, cache)
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)
    automatic = config.model_copy(update={"precision": "auto"})
    assert resolve_config(automatic).settings.precision == "bf16"
    result = extract_features(make_manifest("a", "b"), automatic, cache)
    assert (result.num_extracted, read_settings(cache).precision) == (1, "fp32")


def test_other_code_is_counted_and_redone_on_demand(make_manifest, config, cache, monkeypatch):
    manifest, plans = make_manifest("a"), []
    extract_features(manifest, config, cache)
    old = Counter(read_index(cache).code_hash)
    monkeypatch.setattr(plan, "stage_code", lambda: "2" * 16)
    result = extract_features(manifest, config, cache, redo="settings", on_plan=lambda p, _: plans.append(p))
    assert (result.num_extracted, plans[0].other_code) == (0, old)
    assert extract_features(manifest, config, cache, redo="all", dry_run=True).reasons.total() == 1


@pytest.mark.parametrize("damage", [False, True])
def test_merging_keeps_a_cache_of_other_videos_and_a_damaged_one(make_manifest, config, cache, tmp_path, damage):
    extract_features(make_manifest("other"), config, cache)
    if damage:
        cache.write_bytes(cache.read_bytes()[:2000])
    before, manifest = cache.read_bytes(), make_manifest("a")
    extract_features(manifest, config, tmp_path / "x.shard-1-of-1.h5")
    assert not merge_shards(manifest, cache)
    assert read_index(cache).id == ["a"]
    assert (tmp_path / "x.h5.old-1").read_bytes() == before


def test_the_shard_that_differs_is_named(make_manifest, config, cache, tmp_path):
    manifest = make_manifest("a", "b", "c")
    for number, entry in enumerate(manifest.entries, start=1):
        shard = tmp_path / f"x.shard-{number}-of-3.h5"
        crop_size = 48 if number == 2 else 32
        one = replace(manifest, entries=(entry,))
        extract_features(one, config.model_copy(update={"crop_size": crop_size}), shard)
    with pytest.raises(CeflError, match=r"1 of 3 shards .* x\.shard-2-of-3\.h5 has crop_size 48, the others 32"):
        merge_shards(manifest, cache)
    assert not cache.exists()
    assert not corrupted_videos(tmp_path / "x.shard-2-of-3.h5")

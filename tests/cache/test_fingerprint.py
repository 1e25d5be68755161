"""The fingerprint of features depends on every setting; differences of settings are described."""

from dataclasses import asdict, fields, replace

from ceflpipe.cache.fingerprint import ExtractionSettings, describe_diff, detection_fingerprint, fingerprint

SETTINGS = ExtractionSettings(
    "video", "retinaface", "a" * 64, 640, 0.5, "landmarks", 112, "actors", "b" * 64, "imagenet", "bf16", width=512
)


def test_fingerprint_depends_on_everything_that_decides_the_features():
    base = fingerprint(SETTINGS, "0" * 64)
    assert base == fingerprint(replace(SETTINGS), "0" * 64)
    changes = {
        "input": "crops", "detector": "other", "detector_sha256": "c" * 64, "det_size": 320, "det_thresh": 0.6,
        "align": "box", "crop_size": 224, "encoder": "x", "encoder_sha256": "d" * 64, "normalization": "unit",
        "precision": "fp32", "backend": "openvino", "fps": 30.0, "width": 256,
        "detection_version": SETTINGS.detection_version + 1, "encoding_version": SETTINGS.encoding_version + 1,
    }  # fmt: skip
    assert set(changes) == {field.name for field in fields(SETTINGS)}
    changed = {fingerprint(replace(SETTINGS, **{key: value}), "0" * 64) for key, value in changes.items()}
    changed |= {
        fingerprint(SETTINGS, "1" * 64),
        fingerprint(SETTINGS, "0" * 64, "90"),
        fingerprint(SETTINGS, "0" * 64, "", "0 0 9 9"),
    }
    assert len(changed) == len(changes) + 3
    assert base not in changed


def test_the_fingerprint_of_the_face_track_depends_on_what_finds_it_and_not_on_the_encoder():
    of_detection = {"input", "detector", "detector_sha256", "det_size", "det_thresh", "fps", "detection_version"}
    base = detection_fingerprint(SETTINGS, "0" * 64)
    for name, value in asdict(SETTINGS).items():
        other = replace(SETTINGS, **{name: f"{value}x" if isinstance(value, str) else value + 1})
        assert (detection_fingerprint(other, "0" * 64) != base) == (name in of_detection), name
    others = {
        detection_fingerprint(SETTINGS, "1" * 64),
        detection_fingerprint(SETTINGS, "0" * 64, "90"),
        detection_fingerprint(SETTINGS, "0" * 64, "", "0 0 9 9"),
        fingerprint(SETTINGS, "0" * 64),
        base,
    }
    assert len(others) == 5


def test_describe_diff_names_settings_and_shortens_hashes():
    new = replace(SETTINGS, encoder="fer", encoder_sha256="b712" + "0" * 60)
    assert describe_diff(SETTINGS, new) == "encoder actors, now fer; encoder_sha256 bbbbbbbb…, now b7120000…"

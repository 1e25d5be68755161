"""Checks before training: leaks, labels that cannot be learned, apexes past the end."""

from dataclasses import replace

import pytest
from helpers.runs import make_small_dataset

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.data_checks import check_training_data
from ceflpipe.stages.heads.folds import make_folds
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig
from ceflpipe.stages.manifest.leaks import similar_subjects

CONFIG = TrainConfig(head="mean", num_clips=1, frames_per_clip=2, epochs=1, precision="fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_small_dataset(tmp_path_factory.mktemp("data"), ("anger", "fear"), with_videos=False)


def check(data, scheme="subject", hashes=None, allow=False, num_folds=3, change=None):
    entries = data.manifest.entries
    if change:
        entries = tuple(replace(entry, **change(i, entry)) for i, entry in enumerate(entries))
    videos = replace(data.table.videos, source_sha256=hashes or data.table.videos.source_sha256)
    cv = CVConfig(fold_scheme=scheme, folds=num_folds, seed=1, allow_leaks=allow)
    return check_training_data(entries, videos, make_folds(entries, scheme, num_folds, cv.seed), cv)


@pytest.mark.parametrize(
    ("names", "alike"),
    [(["Anna", "anna"], True), (["S1", "S01"], True), (["1", "01"], True), (["Jo Ann", "JoAnn"], True),
     (["S1", "S10"], False), (["10", "1"], False), (["Anna", "Hanna"], False), (["0", ""], False)],
)  # fmt: skip
def test_names_that_differ_in_case_spaces_or_zeros_may_be_one_person(names, alike):
    assert bool(similar_subjects(names)) == alike


@pytest.mark.parametrize("scheme", ["subject", "stratified"])
def test_one_video_in_train_and_test_is_refused_unless_allowed(data, scheme):
    """Oracle: the first video of a test set and the first of its training set get the same bytes."""
    folds = make_folds(data.manifest.entries, scheme, 3, 1)
    hashes = list(data.table.videos.source_sha256)
    hashes[folds[0].test[0]] = hashes[folds[0].train[0]]
    names = [data.manifest.entries[part[0]].path for part in (folds[0].test, folds[0].train)]
    with pytest.raises(CeflError, match=f"in training and in test: ({'|'.join(names)}).*same bytes.*--allow-leaks"):
        check(data, scheme, hashes)
    (note,) = check(data, scheme, hashes, allow=True)
    assert "leaks between training and test were allowed" in note
    same_fold = list(data.table.videos.source_sha256)
    same_fold[folds[0].test[0]] = same_fold[folds[0].test[1]]
    assert not check(data, scheme, same_fold)


def test_one_person_in_train_and_test_under_two_names_is_refused_where_folds_keep_subjects_apart(data):
    def rename(i, entry):
        return {"subject": {"S1": "anna", "S2": "Anna", "S3": "anna "}.get(entry.subject, entry.subject)}

    with pytest.raises(CeflError, match=r"subjects Anna, anna, anna  may be one person"):
        check(data, "subject", change=rename)
    assert not check(data, "stratified", change=rename)


def test_the_run_and_its_metrics_say_that_leaks_were_allowed(data, tmp_path):
    table = replace(data.table, videos=replace(data.table.videos, source_sha256=["same"] * 12))
    with pytest.raises(CeflError, match="same bytes"):
        cross_validate(data.manifest, table, CONFIG, CVConfig(folds=3), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = cross_validate(data.manifest, table, CONFIG, CVConfig(folds=3, allow_leaks=True), tmp_path / "run")
    assert run.cv.allow_leaks
    assert "leaks between training and test were allowed" in run.config["notes"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda i, e: {"label": "anger"}, "all training videos with features are labeled anger; a head needs at least two"),
     (lambda i, e: {"label": ["anger", "fear"][i % 2], "subject": f"S{i % 2}"},
      "all training videos with features are labeled"),
     (lambda i, e: {"label": f"label {i % 3}", "subject": f"S{i % 3}"},
      "no fold tests a label that it trains on: each label has the videos of one subject only")],
)  # fmt: skip
def test_data_that_a_head_cannot_learn_from_is_refused_before_training(data, change, words):
    count = len({change(i, e).get("subject", e.subject) for i, e in enumerate(data.manifest.entries)})
    with pytest.raises(CeflError, match=words):
        check(data, num_folds=min(3, count), change=change)


def test_a_label_with_fewer_subjects_than_folds_is_named(data):
    def relabel(i, entry):
        return {"label": "fear" if entry.subject in ("S0", "S1") else "anger" if i % 2 else "joy"}

    assert check(data, change=relabel) == ["fear (2 subjects) has no test video in 1 of 3 folds"]
    notes = check(
        data, num_folds=2, change=lambda i, e: {"label": "fear" if e.subject == "S0" else ["joy", "anger"][i % 2]}
    )
    assert any("fear (1 subject) is tested but not trained on in fold" in note for note in notes)


def test_an_apex_after_the_last_frame_is_named_and_counts_as_unknown(data, tmp_path):
    first = data.manifest.entries[0]
    manifest = replace(data.manifest, entries=(replace(first, apex="9999"), *data.manifest.entries[1:]))
    config = TrainConfig(**{**CONFIG.model_dump(), "head": "cefl", "num_clips": 10})
    run = cross_validate(manifest, data.table, config, CVConfig(folds=3), tmp_path / "run")
    (note,) = run.config["notes"]
    assert f"e.g. {first.id}: apex 9999, {data.table.videos.length[0]} frames" in note
    locating = run.metrics["locating_accuracy"]
    assert (locating["videos"], locating["reachable"]) == (12, 11)

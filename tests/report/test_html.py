"""The report page: self-contained, complete, with a message for whatever is missing, and all data escaped."""

import html
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.fake_cache import fake_cache
from helpers.run_cli import run_cli_in_process
from helpers.runs import make_small_dataset, train

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages.manifest.manifest import write_manifest
from ceflpipe.stages.report.html import report_bytes, write_report
from ceflpipe.stages.report.paper_comparison import (
    PAPER_RESULTS,
    ablation_rows,
    accuracy_rows,
    frames_rows,
    locating_rows,
)
from ceflpipe.stages.report.sections import ReportInputs
from ceflpipe.stages.report.sweep_results import read_sweep

pytestmark = pytest.mark.slow

HOSTILE = ("<script>window.hacked = 1</script>", "\"><img src=x onerror='window.hacked=1'>", "{{ 7 * 7 }} $x_")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_small_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(data):
    return [train(data, "cefl"), train(data, "mean")]


@pytest.fixture(scope="module")
def report(data, runs):
    return write_report(ReportInputs(tuple(runs), data.manifest, data.table), data.root / "report").parent


def test_the_estimate_of_its_size_covers_a_report(data, runs, report):
    size = sum(file.stat().st_size for file in report.iterdir())
    assert size <= report_bytes(ReportInputs(tuple(runs), data.manifest, data.table)) <= 20 * size


def test_every_figure_is_on_the_page_and_in_files(report):
    page = (report / "report.html").read_text()
    stems = sorted(file.stem for file in report.glob("*.png"))
    for stem in stems:
        assert (report / f"{stem}.csv").stat().st_size > 20
        assert f'id="{stem}"' in page
    assert {re.sub(r"_(anger|fear|joy)_(correct|wrong)$|_mean$", "", stem) for stem in stems} == {
        "accuracy_by_fold",
        "confusion",
        "extraction",
        "filmstrip",
        "learning_curves",
        "recall",
        "reliability",
        "subjects",
        "tsne",
    }
    assert page.count("<svg") == len(stems)
    assert {file.stem for file in report.glob("*.csv")} - set(stems) == {"scores", "errors", "locating_by_label"}


def test_the_page_needs_no_other_file_and_no_script(report):
    page = (report / "report.html").read_text()
    urls = re.findall(r"""(?:src|href|xlink:href)\s*=\s*["']([^"']*)""", page)
    assert all(url.startswith(("data:", "#")) for url in urls)
    assert "@import" not in page
    assert "url(http" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert len(page) < 3e6
    fragments = re.findall(r'<a href="#([^"]*)"', page)
    assert fragments
    assert all(page.count(f'id="{fragment}"') == 1 for fragment in fragments)


def test_a_page_with_all_apexes_known_mentions_no_others(report):
    assert "known apex are left out" not in (report / "report.html").read_text()
    assert "have no known apex" not in (report / "report.html").read_text()


def test_the_headline_has_n_folds_both_stds_command_and_versions(report, runs):
    page = (report / "report.html").read_text()
    war = runs[0].metrics["war"]
    for text in (
        f"{100 * war['mean']:.2f}",
        f"{100 * war['std_ddof0']:.2f} with ddof 0",
        f"{100 * war['std_ddof1']:.2f} with ddof 1",
        "n = 18 videos",
        "3 subject-wise folds",
        "ceflpipe train-heads --head cefl",
        "torch 2",
    ):
        assert text in page, text


def test_the_reliability_figure_has_every_prediction_and_says_n_and_the_error(report, runs):
    bins, page = pd.read_csv(report / "reliability.csv"), html.unescape((report / "report.html").read_text())
    values = runs[0].metrics["calibration"]
    assert bins.groupby("calibration").n.sum().to_dict() == {"before": 18, "after": 18}
    gaps = ((bins.accuracy - bins.confidence).abs() * bins.n).groupby(bins.calibration).sum() / 18
    assert gaps["before"] == pytest.approx(values["ece_before"], abs=1e-4)
    assert f"{100 * values['ece_after']:.1f} % (before {100 * values['ece_before']:.1f} %" in page
    assert "n = 18 held-out predictions" in page
    assert "bins of fewer than 10 predictions" in page


def test_numbers_in_the_csv_files_are_those_of_the_metrics(report, runs):
    scores = pd.read_csv(report / "scores.csv")
    assert scores["war"].tolist() == pytest.approx([100 * run.metrics["war"]["mean"] for run in runs], abs=1e-3)
    counts = pd.read_csv(report / "confusion.csv").set_index("true")
    np.testing.assert_array_equal(counts.to_numpy(), runs[0].metrics["confusion"])
    points, errors = (pd.read_csv(report / f"{name}.csv") for name in ("tsne", "errors"))
    is_main = points["run"].str.startswith("CEFLNet")
    assert set(errors["id"]) == set(points[is_main & ~points["correct"]]["id"])
    assert errors["confidence"].is_monotonic_decreasing


def test_every_point_of_the_tsne_names_its_video(report):
    page = (report / "report.html").read_text()
    titles = dict(re.findall(r'<g id="point-(\d+)"><title>(.*?)</title>', page, flags=re.DOTALL))
    points = pd.read_csv(report / "tsne.csv", dtype=str)
    assert len(titles) == len(points) == 36
    for i, point in points.iterrows():
        expected = f"{point.id}\nlabel: {point.label}\npredicted: {point.predicted}\nfold: {point.fold}"
        assert html.unescape(titles[str(i)]) == expected


def test_videos_without_an_apex_are_left_out_of_locating_and_the_page_says_so(tmp_path):
    """One label has no apex, as neutral: its videos count in WAR only, its filmstrips have no triangle and no verdict."""
    data = make_small_dataset(tmp_path, labels=("anger", "fear", "neutral"))
    entries = [replace(e, apex="") if e.label == "neutral" else e for e in data.manifest.entries]
    data = replace(data, manifest=replace(data.manifest, entries=tuple(entries)))
    run = train(data, "cefl")
    assert run.metrics["videos"] == 18
    assert run.metrics["locating_accuracy"]["videos"] == 12
    folder = write_report(ReportInputs((run,), data.manifest, data.table), tmp_path / "out").parent
    assert pd.read_csv(folder / "locating_by_label.csv").label.tolist() == ["anger", "fear"]
    page = (folder / "report.html").read_text()
    assert "of 12; the other 6 videos have no known apex)" in page
    assert "6 videos without a known apex are left out." in page
    strips = re.findall(
        r'<figure[^>]* id="filmstrip_(\w+)_\w+".*?<figcaption>(.*?)</figcaption>', page, flags=re.DOTALL
    )
    assert {label for label, _ in strips} == {"anger", "fear", "neutral"}
    assert all(("the apex." in caption) == (label != "neutral") for label, caption in strips)


def test_the_page_names_the_command_for_whatever_is_missing(report):
    page = (report / "report.html").read_text()
    assert "ceflpipe sweep --dataset small" in page
    assert "ceflpipe train-heads --dataset small --head lstm" in page
    assert "not recorded" in page  # the speed of stage one


def test_optimistic_numbers_are_marked_everywhere(data):
    run = train(data, "mean", out="best", checkpoint="best-test", epochs=3)
    folder = write_report(ReportInputs((run,), data.manifest, data.table), data.root / "optimistic").parent
    page = (folder / "report.html").read_text()
    assert "Optimistic: in each fold the epoch with the best test score was kept" in page
    assert all("optimistic" in name for name in pd.read_csv(folder / "recall.csv")["run"])
    for row in re.findall(r"<tr[^>]*><td>(?:here: )?(?:ResNet-18|mean of frames).*?</tr>", page, flags=re.DOTALL):
        assert "optimistic" in row or "not run" in row
    assert "has no activation map" in page


def test_an_encoder_that_is_no_resnet18_is_not_counted_as_one(data, tmp_path):
    """A run on 64 features a frame: its row has its own head's parameters, and neither parameters nor MACs of an encoder."""
    fake_cache(tmp_path / "x.h5", data.manifest, width=64, encoder="small")
    run = train(replace(data, table=read_features(tmp_path / "x.h5")), "mean", out="other width", epochs=1)
    page = write_report(ReportInputs((run,), data.manifest), tmp_path / "out").read_text()
    row = r"<td>here: mean of frames</td>" + r"<td>([^<]*)</td>" * 4 + "</tr>"
    (cells,) = re.findall(row, page)
    assert cells[:3] == ("—", f"{(64 * 3 + 3) / 1e6:.2f}", "—")
    assert "small is no ResNet-18 and is not counted" in page
    assert "Here the encoder (small) is frozen, its 64 features" in page


def test_data_is_never_markup(tmp_path):
    data = make_small_dataset(tmp_path, labels=HOSTILE, with_videos=False, name="<b>name</b>")
    run = train(data, "cefl", epochs=2)
    page = write_report(ReportInputs((run,), data.manifest, data.table), tmp_path / "out").read_text()
    for text in HOSTILE[:2]:
        assert text not in page
    assert "{{ 7 * 7 }}" in page
    assert "<b>name</b>" not in page
    titles = re.findall(r"<title>(.*?)</title>", page, flags=re.DOTALL)
    assert any(f"label: {HOSTILE[0]}\n" in html.unescape(title) for title in titles)  # the text itself is there


def test_without_features_the_rest_is_still_reported(data, runs, tmp_path):
    inputs = ReportInputs((runs[0],), data.manifest, missing=("No feature cache x.h5",))
    page = write_report(inputs, tmp_path / "out").read_text()
    assert "No feature cache x.h5" in page
    assert "No filmstrips" in page
    assert "No t-SNE" in page
    assert "ceflpipe extract --dataset small" in page


def test_no_tsne_of_a_cache_that_has_changed(data, runs, tmp_path):
    videos = replace(data.table.videos, checksum=["other"] * len(data.table.videos))
    changed = replace(data.table, videos=videos)
    page = write_report(ReportInputs((runs[0],), data.manifest, changed), tmp_path / "out").read_text()
    assert "the feature cache has changed since the run was trained" in page


def test_a_folder_with_other_files_is_not_replaced(data, runs, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CeflError, match=r"holds thesis\.tex, which ceflpipe did not write"):
        write_report(ReportInputs((runs[0],), data.manifest), tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(CeflError, match="is a file; give --out the name of a folder"):
        write_report(ReportInputs((runs[0],), data.manifest), tmp_path / "thesis.tex")


def test_our_results_are_next_to_the_papers_tables(runs):
    mmi = accuracy_rows(runs, "mmi")
    assert [row["accuracy"] for row in mmi if row["name"] == "CEFLNet"] == [91.00]
    assert sum(row["ours"] for row in mmi) == 2
    assert max(row["accuracy"] for row in mmi if not row["ours"]) == 91.00
    assert [row["name"] for row in accuracy_rows(runs, "small")[:4]] == [
        f"CEFLNet on {result.title}" for result in PAPER_RESULTS.values()
    ]
    table_6 = ablation_rows(runs, "small")
    assert [row["paper"] for row in table_6] == [62.77, 79.17, 84.17, 84.67, 85.33]
    assert [bool(row["ours"]) for row in table_6] == [True, False, False, False, True]
    assert [row["paper"] for row in locating_rows(runs[0], "small")] == [55.83, 67.57, 45.00, 47.65, None]
    accuracy = runs[0].metrics["locating_accuracy"]["predicted_label"]["mean"]
    assert locating_rows(runs[0], "dfew")[3]["ours"] == pytest.approx(100 * accuracy)
    points = pd.DataFrame({"frames_per_clip": [5, 7], "mean": [0.5, 0.25], "std": [0.1, 0.0]})
    rows = frames_rows(points)
    assert [(row["frames"], row["paper"], row["ours"]) for row in rows] == [
        (2, 85.00, None), (5, 85.33, 50.0), (7, None, 25.0), (10, 84.17, None), (15, 84.17, None),
    ]  # fmt: skip


def test_errors_for_files_that_are_not_a_sweep(tmp_path):
    (tmp_path / "sweep.csv").write_text("num_clips,war\n1,0.5\n")
    with pytest.raises(CeflError, match="it has no columns head, frames_per_clip, learning_rate, fold, seed, uar"):
        read_sweep(tmp_path / "sweep.csv")
    with pytest.raises(CeflError, match="no such sweep"):
        read_sweep(tmp_path / "none.csv")


def test_a_sweep_is_on_the_page_with_table_9(data, runs, tmp_path):
    rows = [
        {"head": "cefl", "num_clips": n, "frames_per_clip": k, "learning_rate": 1e-3, "fold": str(fold), "seed": 1}
        | {"war": 0.1 * n + 0.01 * k, "uar": 0.5}
        for n in (3, 7)
        for k in (2, 5)
        for fold in range(3)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "sweep.csv", index=False)
    sweep = read_sweep(tmp_path / "sweep.csv")
    inputs = ReportInputs((runs[0],), data.manifest, sweep=sweep, sweep_file=tmp_path / "sweep.csv")
    counts: list[tuple[int, int]] = []
    page = write_report(inputs, tmp_path / "out", lambda completed, total, note="": counts.append((completed, total)))
    assert {path.stem for path in page.parent.glob("sweep_*.png")} == {"sweep_num_clips", "sweep_frames_per_clip"}
    assert "n = 3: 35 slots, start slots 0 to 29, 15 in testing" in page.read_text()
    assert "<tr><td>2</td><td>25.52</td><td>85.00</td><td>72.00</td><td>0.00</td></tr>" in page.read_text()
    assert [completed for completed, _ in counts[:-1]] == list(range(1, len(counts)))
    assert all(completed <= total for completed, total in counts)
    assert counts[-1] == (len(counts) - 1, len(counts) - 1)


def test_the_command_reports_the_configured_heads_and_says_what_is_missing(data, runs, tmp_path):
    write_manifest(tmp_path / "small.csv", data.manifest.entries)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pipeline.yaml").write_text("heads: [mean, lstm]\n")
    arguments = ("report", "--manifest", "small.csv", "--labels", "anger,fear,joy", "--root", data.root)
    nothing = run_cli_in_process(*arguments, cwd=tmp_path)
    assert nothing.returncode == 2
    assert "artifacts/runs/small/faces/mean: not a run folder" in nothing.stderr
    shutil.copytree(runs[1].path, tmp_path / "artifacts" / "runs" / "small" / "faces" / "mean")
    shutil.copytree(
        runs[0].path, tmp_path / "artifacts" / "runs" / "small" / "faces" / "cefl"
    )  # exists, but not configured
    result = run_cli_in_process(*arguments, cwd=tmp_path, check=True)
    assert result.stdout.strip() == "artifacts/reports/small/report.html"
    assert "No run of head lstm" in result.stderr
    assert "No feature cache" in result.stderr
    heads = pd.read_csv(tmp_path / "artifacts/reports/small/scores.csv")["head"].tolist()
    assert heads == ["mean"]


@pytest.mark.parametrize("faceless", [("v1_0.mp4",), ("v0_1.mp4", "v1_1.mp4", "v2_1.mp4", "v3_1.mp4", "v4_1.mp4")])
def test_videos_without_a_face_are_on_the_page(tmp_path, faceless):
    """One in one fold, or some in all: they have no probabilities, and count as errors all the same."""
    data = make_small_dataset(tmp_path, faceless=faceless)
    runs = (train(data, "cefl", epochs=2), train(data, "mean", epochs=2))
    page = write_report(ReportInputs(runs, data.manifest, data.table), tmp_path / "report").read_text()
    assert page.count("no face found") >= 1
    predictions = runs[0].predictions()
    failed = predictions[predictions.predicted == ""]
    assert len(failed) == len(faceless)
    assert failed[["p_anger", "intensity_1", "located_clip"]].isna().all(axis=None)
    assert predictions.p_anger.dtype == float

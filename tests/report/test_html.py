"""The page is whole by itself, says what is absent, marks what is optimistic, and takes nobody's words for markup."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers.cli import run_here
from helpers.runs import make_world, train

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.report.html import make_report
from ceflpipe.stages.report.paper_comparison import ablation_rows, accuracy_rows, locating_rows
from ceflpipe.stages.report.sections import ReportInputs
from ceflpipe.stages.report.sweep_results import read_sweep

HOSTILE = ("<script>window.hacked = 1</script>", "\"><img src=x onerror='window.hacked=1'>", "{{ 7 * 7 }} $x_")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def runs(world):
    return [train(world, "cefl"), train(world, "mean")]


@pytest.fixture(scope="module")
def report(world, runs):
    return make_report(ReportInputs(tuple(runs), world.manifest, world.table), world.home / "report").parent


def test_every_figure_stands_on_the_page_and_beside_it_with_its_numbers(report):
    page = (report / "report.html").read_text()
    pictures = sorted(file.stem for file in report.glob("*.png"))
    for name in pictures:
        assert (report / f"{name}.csv").stat().st_size > 20
        assert f'id="{name}"' in page
    kinds = {re.sub(r"_(anger|fear|joy)_(right|wrong)$|_mean$", "", name) for name in pictures}
    assert kinds == {
        "confusion",
        "extraction",
        "learning_curves",
        "recall",
        "scores_by_fold",
        "strip",
        "subjects",
        "tsne",
    }
    assert (
        re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL).count("<svg") == len(pictures) + 1
    )  # the t-SNE stands there for print and for browsers without scripts


def test_nothing_of_it_comes_from_elsewhere(report):
    page = (report / "report.html").read_text()
    without_scripts = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    addresses = re.findall(r"""(?:src|href|xlink:href)\s*=\s*["']([^"']*)""", without_scripts)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "@import" not in without_scripts
    assert "url(http" not in without_scripts
    assert "default-src 'none'" in page
    assert len(page) < 6e6


def test_the_headline_has_n_folds_both_deviations_command_and_versions(report, runs):
    page = (report / "report.html").read_text()
    war = runs[0].metrics["war"]
    for said in (
        f"{100 * war['mean']:.2f}",
        f"{100 * war['std_ddof0']:.2f} with ddof 0",
        f"{100 * war['std_ddof1']:.2f} with ddof 1",
        "n = 18 videos",
        "3 subject-wise folds",
        "ceflpipe train-heads --head cefl",
        "torch 2",
    ):
        assert said in page, said


def test_numbers_in_the_csv_are_those_of_the_metrics(report, runs):
    scores = pd.read_csv(report / "scores.csv")
    assert scores["war"].tolist() == pytest.approx([100 * run.metrics["war"]["mean"] for run in runs], abs=1e-3)
    counts = pd.read_csv(report / "confusion.csv").set_index("true")
    np.testing.assert_array_equal(counts.to_numpy(), runs[0].metrics["confusion"])
    right, wrong = (pd.read_csv(report / f"{name}.csv") for name in ("tsne", "wrong"))
    assert set(wrong["id"]) == set(right[(right["head"].str.startswith("CEFLNet")) & ~right["correct"]]["id"])


def test_what_is_absent_is_said_with_the_command_that_makes_it(report):
    page = (report / "report.html").read_text()
    assert "ceflpipe sweep --dataset small" in page
    assert "ceflpipe train-heads --dataset small --head lstm" in page
    assert "not recorded" in page  # the speed of stage one


def test_best_test_numbers_are_marked_wherever_they_stand(world):
    run = train(world, "mean", out="best", select="best-test", epochs=3)
    out = make_report(ReportInputs((run,), world.manifest, world.table), world.home / "optimistic").parent
    page = (out / "report.html").read_text()
    assert "Optimistic: of each fold the epoch with the best test score was kept" in page
    assert all("optimistic" in name for name in pd.read_csv(out / "recall.csv")["head"])
    for line in re.findall(r"<tr[^>]*><td>(?:here: )?ResNet-18.*?</tr>", page, flags=re.DOTALL):
        assert "optimistic" in line or "not run" in line
    assert "has no activation map" in page


def test_words_of_others_stay_words(tmp_path):
    world = make_world(tmp_path, labels=HOSTILE, films=False, name="<b>odd</b>")
    run = train(world, "cefl", epochs=2)
    page = make_report(ReportInputs((run,), world.manifest, world.table), tmp_path / "out").read_text()
    for words in HOSTILE[:2]:
        assert words not in page
    assert "{{ 7 * 7 }}" in page
    assert "<b>odd</b>" not in page
    item = json.loads(re.search(r'id="tsne-item">(.*?)</script>', page, flags=re.DOTALL).group(1))
    assert HOSTILE[0] in json.dumps(item)  # the words themselves have arrived


def test_without_the_features_the_rest_is_still_reported(world, runs, tmp_path):
    page = make_report(
        ReportInputs((runs[0],), world.manifest, absent=("No feature cache x.h5",)), tmp_path / "out"
    ).read_text()
    assert "No feature cache x.h5" in page
    assert "No film strips" in page
    assert "Not drawn" in page
    assert "Bokeh" not in page


def test_a_changed_cache_is_not_drawn_as_the_runs_own(world, runs, tmp_path):
    from dataclasses import replace

    index = replace(world.table.index, checksum=["other"] * len(world.table.index))
    changed = replace(world.table, index=index)
    page = make_report(ReportInputs((runs[0],), world.manifest, changed), tmp_path / "out").read_text()
    assert "the feature cache has changed since the run was made" in page


def test_a_folder_of_somebody_else_is_not_replaced(world, runs, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CeflError, match=r"thesis\.tex, which no report wrote"):
        make_report(ReportInputs((runs[0],), world.manifest), tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_the_papers_tables_stand_beside_ours(runs):
    mmi = accuracy_rows(runs, "mmi")
    assert [line["accuracy"] for line in mmi if line["name"] == "CEFLNet"] == [91.00]
    assert sum(line["ours"] for line in mmi) == 2
    assert max(line["accuracy"] for line in mmi if not line["ours"]) == 91.00
    table_6 = ablation_rows(runs, "small")
    assert [line["paper"] for line in table_6] == [62.77, 79.17, 84.17, 84.67, 85.33]
    assert [bool(line["ours"]) for line in table_6] == [True, False, False, False, True]
    assert [line["paper"] for line in locating_rows(runs[0], "small")] == [55.83, 67.57, 45.00, 47.65, None]
    assert locating_rows(runs[0], "dfew")[3]["ours"] == pytest.approx(
        100 * runs[0].metrics["locating"]["predicted_label"]["mean"]
    )


def test_a_sweep_that_is_none_is_said(tmp_path):
    (tmp_path / "sweep.csv").write_text("clips,war\n1,0.5\n")
    with pytest.raises(CeflError, match="not a sweep: column head, frames, learning_rate, fold, seed, uar is missing"):
        read_sweep(tmp_path / "sweep.csv")
    with pytest.raises(CeflError, match="no such sweep"):
        read_sweep(tmp_path / "none.csv")


def test_the_command_takes_its_heads_from_the_configuration_and_says_what_is_missing(world, runs, tmp_path):
    from ceflpipe.stages.manifest.manifest import write_manifest

    write_manifest(tmp_path / "small.csv", world.manifest.rows)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pipeline.yaml").write_text("heads: [mean, lstm]\n")
    arguments = ("report", "--manifest", "small.csv", "--labels", "anger,fear,joy", "--root", world.home)
    nothing = run_here(*arguments, cwd=tmp_path)
    assert nothing.returncode == 2
    assert "artifacts/runs/small/mean: not a run folder" in nothing.stderr
    shutil.copytree(runs[1].path, tmp_path / "artifacts" / "runs" / "small" / "mean")
    shutil.copytree(runs[0].path, tmp_path / "artifacts" / "runs" / "small" / "cefl")  # there, but not asked for
    result = run_here(*arguments, cwd=tmp_path, check=True)
    assert result.stdout.strip() == "artifacts/reports/small/report.html"
    assert "No run of head lstm" in result.stderr
    assert "No feature cache" in result.stderr
    heads = pd.read_csv(tmp_path / "artifacts/reports/small/scores.csv")["head"].tolist()
    assert heads == ["mean"]


@pytest.mark.parametrize("faceless", [("v1_0.mp4",), ("v0_1.mp4", "v1_1.mp4", "v2_1.mp4", "v3_1.mp4", "v4_1.mp4")])
def test_videos_that_nobody_could_judge_are_on_the_page(tmp_path, faceless):
    """One in one fold, or some in all: their probabilities are empty, and they are wrong predictions all the same."""
    odd = make_world(tmp_path, faceless=faceless)
    runs = (train(odd, "cefl", epochs=2), train(odd, "mean", epochs=2))
    page = make_report(ReportInputs(runs, odd.manifest, odd.table), tmp_path / "report").read_text()
    assert page.count("no face found") >= 1
    predictions = runs[0].predictions()
    unjudged = predictions[predictions.predicted == ""]
    assert len(unjudged) == len(faceless)
    assert unjudged[["p_anger", "intensity_1", "located_clip"]].isna().all(axis=None)
    assert predictions.p_anger.dtype == float

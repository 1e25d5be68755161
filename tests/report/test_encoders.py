"""The report's section on encoders: the runs of several encoders side by side, and nowhere else on the page."""

import re

import pandas as pd
import pytest
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.run_cli import run_cli_in_process
from matplotlib.lines import Line2D

from ceflpipe.stages.heads.intervals import corrected_interval
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.manifest.manifest import write_manifest
from ceflpipe.stages.plots.charts import encoders_figure
from ceflpipe.stages.report.tables import run_names

SHORT = ("--folds", 2, "--epochs", 3, "--quiet")
LIST = ("--manifest", "mine.csv")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Runs on the features of three encoders, one of which with other seeds."""
    home = tmp_path_factory.mktemp("encoders")
    manifest = fake_manifest(home)
    write_manifest(home / "mine.csv", manifest.entries)
    (home / "params.yaml").write_text("train: {warmup_epochs: 0, learning_rate: 0.01}\n")  # so that scores differ
    for seed, (name, width) in enumerate((("base", 64), ("narrow", 32), ("other", 16))):
        fake_cache(
            home / f"artifacts/features/mine/{name}.h5", manifest, seed=seed, width=width, encoder=name, signal=10
        )
    for name, seed in (("base", 1), ("narrow", 1), ("other", 2)):
        for head in ("cefl", "mean") if name != "narrow" else ("cefl",):
            options = ("--encoder", name, "--head", head, "--seed", seed)
            run_cli_in_process("train-heads", *LIST, *options, *SHORT, cwd=home, check=True)
    run_cli_in_process("report", *LIST, "--encoder", "base", "--quiet", cwd=home, check=True)
    return home


def test_the_section_has_the_runs_of_both_encoders_and_the_rest_those_of_the_first(home):
    folder = home / "artifacts/reports/mine"
    page = (folder / "report.html").read_text()
    assert '<a href="#encoders">' in page
    section = re.search(r'<h2 id="encoders">.*?</section>', page, flags=re.DOTALL)[0]
    rows = re.findall(r"<tr[^>]*>(<t[dh] class=.text.*?)</tr>", section, flags=re.DOTALL)
    cells = [
        [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row, flags=re.DOTALL)] for row in rows
    ]
    assert [row[:2] for row in cells[1:]] == [
        ["CEFLNet (paper&#39;s equations)"], ["base", "64"], ["narrow", "32"], ["mean of frames"], ["base", "64"],
    ]  # fmt: skip
    cells = cells[2:4]
    runs = {name: read_run(home / f"artifacts/runs/mine/{name}/cefl") for name in ("base", "narrow")}
    scores = {name: run.predictions().groupby("fold").correct.mean().astype(float) for name, run in runs.items()}
    assert [float(row[3]) for row in cells] == [pytest.approx(100 * scores[n].mean(), abs=0.01) for n in runs]
    pairs = scores["narrow"] - scores["base"]
    assert pairs.abs().max() > 0
    low, high = corrected_interval(pairs.tolist(), 1)  # two folds: as many test videos as training videos
    assert cells[1][9] == f"{100 * pairs.mean():+.2f} ({100 * low:+.1f} to {100 * high:+.1f})"
    assert cells[1][10].replace("&nbsp;", " ") == f"{(pairs > 0).sum()} : {(pairs < 0).sum()} of 2"
    elsewhere = page.replace(section, "")
    assert "narrow" not in re.sub(r'class="[^"]*"|<style>.*?</style>', "", elsewhere, flags=re.DOTALL)
    assert set(pd.read_csv(folder / "scores.csv")["run"]) == {"CEFLNet (paper's equations)", "mean of frames"}
    assert len(pd.read_csv(folder / "encoders_by_fold.csv")) == 3 * 2
    assert pd.read_csv(folder / "encoders.csv").encoder.tolist() == ["base", "narrow", "base"]
    assert (folder / "encoders_by_fold.png").is_file()


def test_a_run_with_other_seeds_is_left_out_and_named(home):
    page = (home / "artifacts/reports/mine/report.html").read_text()
    assert page.count("mine/other/cefl is not compared: it differs from") == 1
    assert "in cv.seed" in page
    assert "ceflpipe ablate --manifest mine.csv --encoders base,other --heads cefl" in page


def test_runs_of_one_head_on_two_encoders_have_two_names(home):
    paths = [home / f"artifacts/runs/mine/{name}/cefl" for name in ("base", "narrow")]
    names = run_names([read_run(path) for path in paths])
    assert names == ["CEFLNet (paper's equations) (base)", "CEFLNet (paper's equations) (narrow)"]
    out = home / "both"
    run_cli_in_process(
        "report", *LIST, *(part for path in paths for part in ("--run", path)), "--out", out, "--quiet", cwd=home,
        check=True,
    )  # fmt: skip
    assert (out / "confusion_cefl.png").is_file()
    assert 'id="encoders"' not in (out / "report.html").read_text(), "only the named runs are reported"


def test_the_figure_shows_every_fold_and_the_differences():
    folds = pd.DataFrame(
        [("t", "a", "1", 0.5, 0.0), ("t", "a", "2", 0.7, 0.0), ("t", "b", "1", 0.6, 0.1), ("t", "b", "2", 0.5, -0.2)],
        columns=["title", "encoder", "fold", "war", "difference"],
    )
    left, right = encoders_figure(folds).axes

    def points(axes, label):
        lines = [line for line in axes.get_children() if isinstance(line, Line2D) and line.get_label() == label]
        return [line.get_xdata().tolist() for line in lines]

    assert points(left, "_folds") == [pytest.approx([50, 70]), pytest.approx([60, 50])]
    assert points(right, "_folds") == [pytest.approx([10, -20])]
    assert points(right, "_mean") == [pytest.approx([-5])]
    assert [label.get_text() for label in left.get_yticklabels()] == ["t", "a", "b"]

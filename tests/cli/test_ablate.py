"""`ceflpipe ablate`: how far the training of each row had come is said beside its score, and both forms of the table agree with
the runs they are made of."""

import json
import re

import pandas as pd
import pytest
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.run_cli import run_cli_in_process

from ceflpipe.stages.heads.comparison import paired_differences, results_frame
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.manifest.manifest import write_manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablate")
    manifest = fake_manifest(folder)
    write_manifest(folder / "mine.csv", manifest.entries)
    fake_cache(folder / "artifacts/features/mine/random.h5", manifest, signal=30)
    return folder


def ablate(home, *options):
    command = ("ablate", "--manifest", "mine.csv", "--heads", "mean,cefl", "--folds", 2, "--quiet", *options)
    return run_cli_in_process(*command, cwd=home, check=True).stdout


@pytest.mark.parametrize(("epochs", "are_trained"), [(1, [False, False]), (12, [False, True])])
def test_a_row_that_ends_under_trained_is_named(home, epochs, are_trained):
    """The warm-up lasts ten epochs, so that nothing is learned in one; CEFLNet learns much faster than the mean of frames."""
    options = ("--epochs", epochs, "--out", f"rows-{epochs}")
    lines = ablate(home, *options).splitlines()
    values = json.loads(ablate(home, *options, "--json"))["train_accuracy"]
    for head, title, is_trained in zip(
        ("mean", "cefl"), ("mean of frames", "CEFLNet (paper's equations)"), are_trained, strict=True
    ):
        history = read_run(home / f"rows-{epochs}" / head).history()
        expected = history[history.epoch == epochs].train_accuracy.mean()
        assert values[head] == pytest.approx(expected, abs=1e-4)
        begin = " ".join(title.split()[:2])  # the table may have to break a title
        (row,) = [line for line in lines if re.match(rf" {re.escape(begin)} .*\d\.\d\d / ", line)]
        assert f" {100 * expected:.2f} " in row
        warnings = [line for line in lines if line.startswith(f"{title} ends under-trained: {expected:.1%}")]
        assert bool(warnings) != is_trained
    hints = [
        line for line in lines if line.startswith("differences to these rows may be step size; see ceflpipe ablate")
    ]
    assert len(hints) == 1
    assert "--tune lr,epochs, or ceflpipe sweep --heads mean,cefl --lr" in hints[0]


TUNE = ("--epochs", 6, "--seeds", 2, "--tune", "lr,epochs", "--tune-lr", "0.001,0.01", "--out", "both")


@pytest.fixture(scope="module")
def both(home):
    """What the command printed, with and without --json, the runs, and the CSVs, which a call without --tune would replace."""
    text, content = ablate(home, *TUNE), json.loads(ablate(home, *TUNE, "--json"))
    names = ("mean", "cefl", "mean-tuned", "cefl-tuned")
    tables = [pd.read_csv(home / content[key], dtype={"fold": str}) for key in ("csv", "differences_csv")]
    return text, content, {name: read_run(home / "both" / name) for name in names}, *tables


def test_both_forms_come_from_one_command(home, both):
    """The first form is what the command gives without --tune, from the same runs; the second has its own."""
    _, content, runs, *_ = both
    assert [run.cv.tune for run in runs.values()] == [(), (), *[("learning_rate", "epochs")] * 2]
    options = [option for option in TUNE if option not in ("--tune", "lr,epochs", "--tune-lr", "0.001,0.01")]
    before = runs["mean"].path.stat().st_mtime_ns
    alone = json.loads(ablate(home, *options, "--json"))
    assert {key: content[key] for key in alone} == alone
    assert runs["mean"].path.stat().st_mtime_ns == before, "trained again"
    forms = [results_frame([runs[f"mean{end}"], runs[f"cefl{end}"]]) for end in ("", "-tuned")]
    for rows, form in zip(forms, (content, content["tuned"]), strict=True):
        (pair,) = form["pairs"]
        assert pair == pytest.approx(paired_differences(rows, "mean", "cefl"))
    for head, pair in zip(("mean", "cefl"), content["by_tuning"], strict=True):
        untuned, tuned = (rows[rows["head"] == head].set_index(["seed", "fold"]).war for rows in forms)
        assert pair["mean"] == pytest.approx((tuned - untuned).mean())
        assert content["tuned"]["models"][head] == runs[f"{head}-tuned"].config["models"]


def test_the_csvs_have_every_fold_of_both_forms_and_every_difference(both):
    _, content, runs, table, differences = both
    assert len(table) == 2 * 2 * 2 * 2
    for (form, head), rows in table.groupby(["form", "head"]):
        run = runs[head if form == "untuned" else f"{head}-tuned"]
        models = pd.DataFrame(run.config["models"]).set_index(["seed", "fold"])
        rows = rows.set_index(["seed", "fold"]).loc[models.index]
        assert rows.used_learning_rate.tolist() == models.learning_rate.tolist()
        assert rows.used_epochs.tolist() == models.epochs.tolist()
        assert set(rows.tuned.fillna("")) == {",".join(run.cv.tune)}
    expected = [*content["pairs"], *content["tuned"]["pairs"], *content["by_tuning"]]
    assert differences["mean"].tolist() == pytest.approx([pair["mean"] for pair in expected])
    assert differences["low"].tolist() == pytest.approx([pair["low"] for pair in expected])


def test_what_is_printed_is_what_the_intervals_show(both):
    text, content, *_ = both
    for form in (content, content["tuned"]):
        (pair,) = form["pairs"]
        shown = "no difference shown" if pair["low"] <= 0 <= pair["high"] else "higher" if pair["mean"] > 0 else "lower"
        line = f"{100 * pair['mean']:+.2f} points, 95% interval {100 * pair['low']:+.1f} to {100 * pair['high']:+.1f}: {shown}"
        assert f"CEFLNet (paper's equations) against mean of frames: {line}\n" in text
    for head, title in (("mean", "mean of frames"), ("cefl", "CEFLNet (paper's equations)")):
        rates = [model["learning_rate"] for model in content["tuned"]["models"][head]]
        (line,) = re.findall(rf"^{re.escape(title)} chose learning rate (.*?);", text, flags=re.MULTILINE)
        counts = {rate: rates.count(rate) for rate in sorted(set(rates))}
        assert line == ", ".join(f"{rate:g} ({count} of 4)" for rate, count in counts.items())


def test_the_report_has_both_forms(home, both):
    _, content, runs, *_ = both
    run_cli_in_process(
        "report", "--manifest", "mine.csv", "--run", runs["cefl-tuned"].path, "--ablation", "both", "--out", "page", "--quiet",
        cwd=home, check=True,
    )  # fmt: skip
    page = (home / "page/report.html").read_text()
    section = page.split("Ablation (table 6")[1].split("<h3>")[0]
    for name in ("mean", "cefl", "mean-tuned", "cefl-tuned"):
        assert f"<td>{100 * runs[name].metrics['war']['mean']:.2f}</td>" in section
    for pair in content["by_tuning"]:
        assert f"{100 * pair['mean']:+.2f} <small>({100 * pair['low']:+.1f} to {100 * pair['high']:+.1f})" in section
    rates = [model["learning_rate"] for model in content["tuned"]["models"]["cefl"]]
    chosen = f"learning rate {min(rates):g} ({rates.count(min(rates))} of 4)"
    assert chosen in section
    assert page.count(chosen) == 3, "beside the scores, in table 6, and under Reproduce"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("train-heads", "--tune", "lr", "--lr", 0.1), "--lr: the learning rate is chosen for each fold"),
        (("train-heads", "--tune-lr", "0.1,0.2"), "--tune-lr: nothing is chosen from these rates; add --tune lr"),
        (("ablate", "--tune", "lr", "--tune-weight-decays", "0.1"), "add --tune weight_decay"),
        (("train-heads", "--tune", "momentum"), "'momentum' cannot be tuned; give one or more of lr, weight_decay and epochs"),
        (("train-heads", "--tune", "lr,learning-rate"), "a setting is listed twice"),
        (("train-heads", "--tune", "lr", "--tune-lr", "0.1,0"), "tune_learning_rates.1: input should be greater than 0"),
        (("sweep", "--tune", "lr", "--lr", "0.1,0.2"), "each rate is a run of its own"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused(home, command, words):
    result = run_cli_in_process(*command, "--manifest", "mine.csv", "--folds", 2, cwd=home)
    assert result.returncode == 2
    assert words in result.stderr


def test_a_sweep_says_of_every_point_how_far_training_had_come(home):
    command = (
        "sweep",
        "--manifest",
        "mine.csv",
        "--heads",
        "mean",
        "--folds",
        2,
        "--epochs",
        12,
        "--clips",
        "1,2",
        "--tune",
        "lr",
    )
    text = run_cli_in_process(*command, "--quiet", cwd=home, check=True).stdout
    content = json.loads(run_cli_in_process(*command, "--quiet", "--json", cwd=home, check=True).stdout)
    table = pd.read_csv(home / content["csv"])
    for clips, point in zip((1, 2), content["points"], strict=True):
        run = read_run(home / f"artifacts/sweeps/mine/random/runs/mean-n{clips}-k5")
        assert point["train_accuracy"] == pytest.approx(run.train_accuracy())
        assert point["late_loss_decrease"] == pytest.approx(run.late_loss_decrease())
        assert table[table.num_clips == clips].train_accuracy.mean() == pytest.approx(run.train_accuracy(), abs=1e-5)
        (row,) = [line.split() for line in text.splitlines() if re.match(rf" *mean +{clips} ", line)]
        state = "falling" if run.late_loss_decrease() > 0.01 else "flat"
        assert row[3] == "tuned"
        assert row[7:9] == [f"{100 * run.train_accuracy():.2f}", state]
        assert f"mean-n{clips}-k5 chose learning rate" in text

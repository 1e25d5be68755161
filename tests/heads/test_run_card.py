"""Model cards of runs: every score is counted again from the predictions, and the hub's own reader understands the metadata."""

import re

import pytest
from helpers.runs import make_small_dataset, train
from huggingface_hub import ModelCard

from ceflpipe.stages.heads.run_card import CardTexts, run_card
from ceflpipe.stages.heads.run_io import read_run, verify_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = make_small_dataset(tmp_path_factory.mktemp("card"), with_videos=False, faceless=("v2_1.mp4",))
    return read_run(train(data, seeds=(1, 2), epochs=4).path)


def rows_of(card, heading):
    """Return the cells of the table below a heading, by the first cell."""
    section = card.partition(f"{heading}\n")[2].partition("\n#")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows[1:]}


def percent(values):
    return f"{100 * sum(values) / len(values):.2f}"


def test_scores_per_label_and_per_subject_are_counts_of_the_predictions(run):
    card, table = run.card(), run.predictions()
    labels, subjects = rows_of(card, "### Per label"), rows_of(card, "### Per subject")
    for label in run.labels:
        true, named = table[table.label == label], table[table.predicted == label]
        assert labels[label][:2] == [str(len(true)), percent(true.predicted == label)]
        assert labels[label][2] == (percent(named.label == label) if len(named) else "—")
    assert len(subjects) == 6
    for subject, (tests, right, accuracy) in subjects.items():
        rows = table[table.subject == subject]
        assert (int(tests), int(right)) == (len(rows), int((rows.label == rows.predicted).sum()))
        assert accuracy == percent(rows.label == rows.predicted)
    rates = [(rows.label == rows.predicted).mean() for _, rows in table.groupby("subject")]
    deviation = sum((rate - sum(rates) / 6) ** 2 for rate in rates)
    assert f"std {100 * (deviation / 6) ** 0.5:.2f} (ddof 0), {100 * (deviation / 5) ** 0.5:.2f} (ddof 1)." in card
    war = rows_of(card, "## Scores")["WAR (accuracy)"]
    by_fold = [group.correct.astype(float).mean() for _, group in table.groupby(["seed", "fold"])]
    mean = sum(by_fold) / len(by_fold)
    squares = sum((value - mean) ** 2 for value in by_fold)
    expected = [mean, (squares / 6) ** 0.5, (squares / 5) ** 0.5]
    assert [float(cell) for cell in war[:3]] == pytest.approx([100 * value for value in expected], abs=0.006)
    assert war[3] == "6"


def test_who_distrusts_a_number_finds_what_made_it(run):
    card, history = run.card(), run.history()
    last = history[history.epoch == 4]
    for text in (
        run.config["command"], run.config["code"], "learning rate 0.001", "Seed 1, 2", run.config["features"]["sha256"],
        run.extraction_settings.encoder_sha256, f"train accuracy {last.train_accuracy.mean():.3f}", "3 subject-wise folds",
        "in hiring", "Regulation 2024/1689", "posed them on request",
    ):  # fmt: skip
        assert text in " ".join(card.split()), text
    assert (run.path / "README.md").read_text() == card
    (run.path / "README.md").write_text(card + "my words")
    assert not verify_run(run.path)
    (run.path / "README.md").write_text(card)


def test_the_hub_reads_the_metadata(run):
    data = ModelCard(run.card()).data
    assert data.pipeline_tag == "video-classification"
    scores = {result.metric_type: result.metric_value for result in data.eval_results}
    assert scores["accuracy"] == pytest.approx(run.metrics["war"]["mean"], abs=1e-4)
    assert {result.dataset_name for result in data.eval_results} == {"small"}


def test_names_and_texts_of_the_user_break_neither_metadata_nor_tables(run):
    name = "a|b: `x` <script> [y] #1 \"q\" 'z'"
    config = {**run.config, "dataset": name, "labels": ["a|b", *run.labels[1:]], "command": "x"}
    table = run.predictions().replace({"S1": "S|1"})
    scores = {**run.metrics, "recall": {**run.metrics["recall"], "a|b": 0.5}}
    card = run_card(config, scores, table, run.history(), CardTexts("The data.", "# Encoder x\n\n## Data\n"))
    assert {result.dataset_name for result in ModelCard(card).data.eval_results} == {name}
    rows = [line for line in card.splitlines() if line.startswith("| a") or line.startswith("| S")]
    assert len(rows) >= 7
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6, 5}
    assert "<script>" not in card.partition("\n---\n")[2].replace("\\<script\\>", "")
    assert "### Encoder x" in card
    assert "#### Data" in card

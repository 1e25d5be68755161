"""Model card of a run, as Markdown with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .calibration import calibration_metrics, describe_calibration
from .convergence import STILL_FALLING, late_loss_decrease
from .registry import HEAD_TITLES
from .train_config import CVConfig

MAX_SUBJECTS = 100
"""Rows of the table of subjects; of more, those with the lowest accuracy are listed."""
NOT_FOR = (
    "It names the expression that a face shows, with the labels of its data set. In many data sets actors or volunteers posed "
    "them on request, and annotators see other expressions in the same face: a label does not say what a person feels.",
    "Not for decisions on people: not in hiring, promotion or dismissal, schools and examinations, policing, border control, "
    "insurance, credit or custody.",
    "Not for inferring emotions of people at work or in education, which some countries forbid (in the European Union Regulation "
    "2024/1689, article 5).",
    "Not for medical or psychological diagnosis, detection of lies, pain, attention, fatigue or danger: nothing of this was "
    "trained or measured.",
    "How accuracy differs between ages, sexes, skin tones, cultures, and people with facial palsy, glasses, masks or make-up was "
    "not measured, except for the subjects that are listed above. Other cameras, light, head poses and cuts lower it.",
    "Probabilities always sum to one over the labels above: a face that shows none of them gets one. They were calibrated, if at "
    "all, on the tested videos; on videos of another kind confidence can be wrong.",
)
"""Limits that every card states."""


@dataclass(frozen=True)
class CardTexts:
    """What a run itself does not know, as Markdown: the data set, and the model card of its encoder; '' if not known."""

    dataset: str = ""
    encoder: str = ""


NO_TEXTS = CardTexts()


def run_card(
    config: dict[str, Any],
    scores: dict[str, Any],
    predictions: pd.DataFrame,
    history: pd.DataFrame,
    texts: CardTexts = NO_TEXTS,
) -> str:
    """Return what a run is: labels, data, scores with their spread, how it was trained, its encoder, and what it is not for.

    ``config``: run.json. ``scores`` and ``predictions``: metrics.json and predictions of the run, of a final model those of its
    cross-validation. ``history``: of the run itself.
    """
    final = config.get("final")
    title = HEAD_TITLES.get(config["train"]["head"], config["train"]["head"])
    encoder = config["features"]["settings"]["encoder"]
    name = f"{title} on {config['dataset']}, features of {encoder}" + (", final model" if final else "")
    sections = [
        [*_front_matter(name, config, scores), f"# {_text(name)}", "", *_introduction(config, scores)],
        ["## Labels and data", "", *_data(config, predictions, texts)],
        [f"## {'Expected scores' if final else 'Scores'}", "", *_scores(config, scores)],
        ["### Calibration", "", *_calibration(config, scores, predictions)],
        ["### Per label", "", *_per_label(scores, config["labels"])],
        ["### Per subject", "", *_per_subject(predictions)],
        ["## What made it", "", *_training(config, history)],
        ["## Encoder", "", *_encoder(config, texts)],
        ["## What it must not be used for", "", *(f"- {line}" for line in NOT_FOR)],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _text(value: object) -> str:
    """Return a name of the user's so that Markdown and tables show it as it is."""
    text = " ".join(str(value).split())
    for character in "\\|<>`*_[]#":
        text = text.replace(character, f"\\{character}")
    return text


def _front_matter(name: str, config: dict[str, Any], scores: dict[str, Any]) -> list[str]:
    """Return the metadata as YAML, whose strings are JSON's; scores only of what was measured on these very models."""
    lines = [
        "---", "library_name: ceflpipe", "license: unknown", "pipeline_tag: video-classification",
        "tags: [facial-expression-recognition, ceflnet, ceflpipe]",
    ]  # fmt: skip
    if "final" not in config:
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:", "  - task: {type: video-classification}"]
        dataset = json.dumps(str(config["dataset"]))
        lines += [f"    dataset: {{name: {dataset}, type: {dataset}}}", "    metrics:"]
        lines += [
            f"    - {{type: {kind}, name: {json.dumps(title)}, value: {scores[key]['mean']:.4f}}}"
            for key, kind, title in (
                ("war", "accuracy", "WAR, mean over folds"), ("uar", "recall", "UAR, mean over folds"),
            )
        ]  # fmt: skip
    return [*lines, "---", ""]


def _introduction(config: dict[str, Any], scores: dict[str, Any]) -> list[str]:
    count, labels = len(config["models"]), len(config["labels"])
    models = f"{count} model{'s' * (count > 1)}"
    if final := config.get("final"):
        what = (
            f"The final model of the run `{final['run']}`: {models}, one per seed, trained on all {len(config['train_only'])} "
            "videos. It was not tested: no video was left to test on. The scores below are those of the cross-validation of the "
            "same configuration, whose models saw fewer videos each."
        )
    else:
        cv = CVConfig(**config["cv"]).describe(scores["folds"])
        what = f"{models} ({cv})" + (
            ", whose probabilities are averaged; each was tested on the videos of its own fold."
            if count > 1
            else ", tested on videos that it was not trained on."
        )
    return [
        f"Names one of {labels} expressions in a video of a face, from features of a frozen frame encoder, with a head of "
        "[CEFLNet](https://doi.org/10.1016/j.ins.2022.03.062) or one it is compared with, trained with ceflpipe. "
        + what,
        "",
        "```",
        "ceflpipe predict film.mp4 --run FOLDER_OF_THIS_FILE",
        "```",
    ]


def _data(config: dict[str, Any], predictions: pd.DataFrame, texts: CardTexts) -> list[str]:
    videos = predictions.drop_duplicates("id")
    counts = videos.label.value_counts()
    labels = ", ".join(f"{_text(label)} ({counts.get(label, 0)} tested)" for label in config["labels"])
    subjects = videos.subject[videos.subject != ""].nunique()
    lines = [f"- Labels: {labels}"]
    lines += [f"- {texts.dataset}"] if texts.dataset else []
    lines += [
        f"- {len(videos)} tested videos of {subjects or 'unknown'} subjects"
        + (
            f", and {len(config['train_only'])} that are only trained on"
            if config["train_only"] and "final" not in config
            else ""
        ),
        f"- Folds: {CVConfig(**config['cv']).describe(int(predictions.fold.nunique()))}; their videos are listed in run.json"
        + (" of the cross-validated run" if "final" in config else ""),
        f"- SHA-256 of the list of videos `{config['manifest_sha256']}`, of the features `{config['features']['sha256']}`, of "
        f"the source files `{config['features']['sources_sha256']}`",
    ]
    return lines + [f"- Note: {_text(note)}" for note in config.get("notes", ())]


def _scores(config: dict[str, Any], scores: dict[str, Any]) -> list[str]:
    rows = [("WAR (accuracy)", scores["war"]), ("UAR (mean recall of the labels)", scores["uar"])]
    if scores["videos_without_prediction"]:
        rows.append(("WAR of the videos with a face", scores["war_with_face"]))
    locating = scores["locating_accuracy"]
    if locating:
        chance = "" if locating["chance"] is None else f" (random clip: {_percent(locating['chance'])} %)"
        rows.append((f"locating accuracy{chance}", locating["predicted_label"]))
    lines = ["| in percent | mean | std (ddof 0) | std (ddof 1) | n |", "|---|---|---|---|---|"]
    for name, values in rows:
        cells = (_percent(values[key]) for key in ("mean", "std_ddof0", "std_ddof1"))
        lines.append(f"| {name} | {' | '.join(cells)} | {values['n']} |")
    lines += [
        "",
        f"n: folds times seeds, {scores['videos']} videos in all; a video without a usable face counts as an error.",
    ]
    if "final" in config:
        lines += ["", f"Expected, measured by the cross-validation `{config['final']['run']}`, not on this model."]
    if scores["optimistic"]:
        lines += ["", "Optimistic: the epoch with the best test score was kept."]
    return lines


def _calibration(config: dict[str, Any], scores: dict[str, Any], predictions: pd.DataFrame) -> list[str]:
    """Return the temperature, and how far confidence is from accuracy before and after it."""
    values = scores.get("calibration") or calibration_metrics(predictions, config["labels"])
    if values is None:
        return ["Not calibrated: no test video had a face."]
    line = describe_calibration(values)
    lines = [f"{line[:1].upper()}{line[1:]}."]
    if values["ece_after"] is not None:
        rows = [
            ("expected calibration error, bins of equal width", "ece"),
            ("expected calibration error, bins of as many predictions", "ece_equal_mass"),
            ("mean confidence", "confidence"),
        ]
        lines += ["", "| in percent | before | after |", "|---|---|---|"]
        for name, key in rows:
            lines.append(f"| {name} | {_percent(values[f'{key}_before'])} | {_percent(values[f'{key}_after'])} |")
        lines += [
            "",
            f"Accuracy of these predictions: {_percent(values['accuracy'])} %. After: each of {values['parts']} parts of the "
            f"test at a temperature fitted to the others ({values['temperature_min']:.2f} to {values['temperature_max']:.2f}).",
        ]
    lines += ["", "The temperature divides the logits of each model, before the mean over models (Guo et al. 2017)."]
    if len(config["models"]) > 1:
        lines[-1] += (
            " The errors are those of single models; their mean is at most as confident as they are on average."
        )
    if "final" in config:
        lines += ["", "Measured by the cross-validation, not on this model."]
    return lines


def _per_label(scores: dict[str, Any], labels: Sequence[str]) -> list[str]:
    counts = np.array(scores["confusion"])
    names = [*labels, "no prediction"]
    lines = ["| label | tests | recall % | precision % | most often taken for |", "|---|---|---|---|---|"]
    for index, label in enumerate(labels):
        errors = counts[index].copy()
        errors[index] = 0
        worst = f"{_text(names[errors.argmax()])} ({errors.max()})" if errors.any() else "—"
        recall, predicted = scores["recall"][label], counts[:, index].sum()
        precision = counts[index, index] / predicted if predicted else None
        lines.append(
            f"| {_text(label)} | {counts[index].sum()} | {_percent(recall)} | {_percent(precision)} | {worst} |"
        )
    return [*lines, "", "Tests: videos times seeds. metrics.json of the cross-validated run has the confusion matrix."]


def _per_subject(predictions: pd.DataFrame) -> list[str]:
    groups = predictions[predictions.subject != ""].groupby("subject", sort=True).correct
    table = pd.DataFrame(
        {"tests": groups.size(), "right": groups.sum().astype(int), "accuracy": groups.mean().astype(float)}
    )
    if table.empty:
        return ["The data set does not say who is in its videos, so accuracy per subject is unknown."]
    accuracy = table.accuracy
    lines = [
        f"{len(table)} subjects: accuracy {_percent(accuracy.min())} to {_percent(accuracy.max())} %, mean "
        f"{_percent(accuracy.mean())}, std {_percent(accuracy.std(ddof=0))} (ddof 0)"
        + (f", {_percent(accuracy.std(ddof=1))} (ddof 1)." if len(table) > 1 else "."),
        "",
    ]
    if len(table) > MAX_SUBJECTS:
        table = table.sort_values("accuracy", kind="stable").head(MAX_SUBJECTS)
        lines += [f"The {MAX_SUBJECTS} with the lowest:", ""]
    lines += ["| subject | tests | right | accuracy % |", "|---|---|---|---|"]
    rows = zip(table.index, table.tests, table.right, table.accuracy, strict=True)
    return lines + [
        f"| {_text(subject)} | {tests} | {right} | {_percent(value)} |" for subject, tests, right, value in rows
    ]


def _training(config: dict[str, Any], history: pd.DataFrame) -> list[str]:
    train, versions = config["train"], config["versions"]
    seeds = ", ".join(map(str, CVConfig(**config["cv"]).seeds))
    lines = [
        f"- Command: `{config['command']}`",
        f"- Head {train['head']}, {config['parameters_per_model']:,} parameters a model; {train['num_clips']} clips of "
        f"{train['frames_per_clip']} frames",
        f"- Adam, learning rate {train['learning_rate']:g} ({train['warmup_epochs']} epochs of warm-up, cosine over "
        f"{train['cosine_t_max']}), weight decay {train['weight_decay']:g}, batches of {train['batch_size']}, {train['epochs']} "
        f"epochs, loss {train['loss']}, precision {train['precision']}",
        *_tuning(config),
        f"- Seed {seeds}; {'last epoch kept' if config['cv']['checkpoint'] == 'last' else 'epoch of the best test score kept'}",
        f"- Converged: {describe_convergence(history)}",
        f"- Code of the heads `{config['code']}`; {', '.join(f'{name} {value}' for name, value in versions.items())}",
    ]
    if sha256 := config.get("init_sha256"):
        lines.append(f"- Started from a checkpoint with SHA-256 `{sha256}`")
    return lines


def _tuning(config: dict[str, Any]) -> list[str]:
    if medians := config.get("final", {}).get("tuned"):
        values = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in medians.items())
        return [f"- Median of what the models of the cross-validation chose on held-out training videos: {values}"]
    tuned = config["cv"].get("tune", ())
    ranges = []
    for name in tuned:
        values = sorted({model[name] for model in config["models"]})
        ranges.append(f"{name.replace('_', ' ')} {values[0]:g}" + (f" to {values[-1]:g}" if len(values) > 1 else ""))
    where = "each model on held-out videos of its own training set"
    return [f"- Chosen for {where}, see tuning.csv: {', '.join(ranges)}"] if tuned else []


def describe_convergence(history: pd.DataFrame) -> str:
    """Return how far training came: accuracy and loss on the training videos in the last epoch, mean and range over models."""
    if history.empty:
        return "nothing was trained"
    last = history.groupby(["seed", "fold"]).tail(1)
    accuracy, loss, epochs = last.train_accuracy, last.train_loss, sorted(set(last.epoch.tolist()))
    text = (
        f"train accuracy {accuracy.mean():.3f} ({accuracy.min():.3f} to {accuracy.max():.3f} over {len(last)} models), train "
        f"loss {loss.mean():.4f} ({loss.min():.4f} to {loss.max():.4f}) in "
        + (f"epoch {epochs[0]}" if len(epochs) == 1 else f"the last epoch, {epochs[0]} to {epochs[-1]}")
    )
    late = late_loss_decrease(history)
    if late is None:
        return text
    end = "was still falling" if late > STILL_FALLING else "had stopped falling"
    return f"{text}; the loss {end}: {100 * late:.1f} % of its whole decrease came in the last tenth of the epochs"


def _encoder(config: dict[str, Any], texts: CardTexts) -> list[str]:
    settings = config["features"]["settings"]
    lines = [
        f"Features of `{settings['encoder']}`, SHA-256 `{settings['encoder_sha256']}`: {config['dim']} numbers a frame, crops of "
        f"{settings['crop_size']} pixels ({settings['input']}, aligned by {settings['align']}), normalization "
        f"{settings['normalization']}, {settings['precision']}."
    ]
    if not texts.encoder:
        return [*lines, "", "Its own model card was not at hand; `ceflpipe inspect ENCODER` prints it."]
    nested = [f"##{line}" if line.startswith("#") else line for line in texts.encoder.strip().splitlines()]
    return [*lines, "", *nested]


def _percent(value: float | None) -> str:
    return "—" if value is None or value != value else f"{100 * value:.2f}"

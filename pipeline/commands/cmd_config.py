"""ceflpipe config: the configuration of a data set with every default filled in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..config import CONFIG_DIR, PARAMS_FILE, load_cv_config, load_pipeline_config, load_train_config
from ..console import echo, echo_json
from ..dataset import DatasetOptions, DatasetSource
from .options import OUT_FILE, announce, force_option, quiet_option


@click.command(
    name="config",
    epilog="Examples: ceflpipe config --dataset mmi; ceflpipe config --dataset mmi --out mmi.json",
    short_help="Print the configuration of a data set, with every default filled in.",
)
@click.option("--dataset", "-d", metavar="NAME", help="A data set of configs/; default: that of pipeline.yaml.")
@click.option("--out", type=OUT_FILE, help="Write it to this file instead.")
@force_option
@quiet_option
def command(dataset: str | None, out: Path | None, force: bool, quiet: bool) -> None:
    """Print as JSON what configs/NAME.yaml, params.yaml and the defaults say together, and the hashes of the encoders' files.

    dvc.yaml compares this file: a key that a configuration leaves out has its default, and an encoder is its content.
    """
    from ...cache.ownership import check_files, write_owned_text
    from ..paths import encoder_file

    source = DatasetOptions(dataset=dataset).resolve()
    content = _resolve(source)
    if out is None:
        echo_json(content)
        return
    files = [CONFIG_DIR / f"{source.name}.yaml", Path(PARAMS_FILE), encoder_file(source.extract_config.encoder)]
    announce(check_files([out], "--out", inputs=files, force=force))
    write_owned_text(out, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if not quiet:
        echo(str(out))


def _resolve(source: DatasetSource) -> dict[str, Any]:
    from ...stages.encoder.weights import read_encoder_metadata
    from ..paths import encoder_file

    config, chosen = source.config, source.extract_config.encoder
    keys = {"loader", "root", "labels", "options", "extract", "allow_external_paths"}
    content = config.model_dump(mode="json", include=keys) if config else {}
    content["extract"] = {key: value for key, value in content.get("extract", {}).items() if key != "encoder"}
    files = {str(name): encoder_file(name) for name in (*load_pipeline_config().encoders, chosen)}
    return {
        **content,
        "encoder": str(chosen),
        "encoders": {
            name: read_encoder_metadata(path).sha256 if path.is_file() else "" for name, path in files.items()
        },
        "train": load_train_config(config).model_dump(mode="json"),
        "cv": load_cv_config(config).model_dump(mode="json"),
    }

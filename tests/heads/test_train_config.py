"""Configuration of stage two: params.yaml and the classes list the same keys with the same defaults."""

import pytest
import yaml
from helpers.run_cli import ROOT

from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig


@pytest.mark.parametrize(("section", "model"), [("train", TrainConfig), ("cv", CVConfig)])
def test_params_yaml_has_every_key_with_the_default_of_its_class(section, model):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert params[section] == model().model_dump(mode="json")
    assert list(params[section]) == list(model.model_fields)

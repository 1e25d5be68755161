"""Keywords of the Python interface: those of the configuration classes, with the same types."""

from typing import get_type_hints

import pytest

from ceflpipe.cache.errors import CeflError
from ceflpipe.pipeline import api
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig


def types_of(*models):
    return {name: get_type_hints(model)[name] for model in models for name in model.model_fields}


def test_keywords_have_the_names_and_types_of_the_configuration():
    extract = types_of(ExtractConfig)
    del extract["encoder"]  # a parameter of its own
    assert get_type_hints(api.ExtractOptions) == extract
    assert get_type_hints(api.CrossValidateOptions) == types_of(TrainConfig, CVConfig)


def test_a_misspelled_keyword_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(CeflError, match="unknown keyword fold; did you mean folds"):
        api.cross_validate("list.csv", "x.h5", tmp_path, fold=5)
    with pytest.raises(CeflError, match="unknown key crop_sise; did you mean crop_size"):
        api.extract("list.csv", "x.h5", encoder="actors", crop_sise=112)
    with pytest.raises(CeflError, match="num_clips"):
        api.cross_validate("list.csv", "x.h5", tmp_path, num_clips=0)

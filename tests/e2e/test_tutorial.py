"""The notebook of docs/ runs from its first cell to its last, on a video that it has never been run on."""

import json

import cv2
import matplotlib as mpl
import numpy as np
from helpers.run_cli import ROOT
from helpers.video import encode_video, panning

NOTEBOOK = ROOT / "docs/tutorial.ipynb"


def test_the_tutorial_makes_its_figure(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mpl, "rcParams", mpl.rcParams.copy())
    mpl.use("Agg")
    gaps = np.random.default_rng(2).integers(20, 90, 129)
    ticks = np.cumsum([0, *gaps]).tolist()
    encode_video(
        tmp_path / "film.mp4", panning(photographs["astronaut"], 130, (224, 224), (90, 0), (120, 20)), ticks=ticks
    )
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    names: dict = {}
    for number, cell in enumerate(cells, start=1):
        assert (cell["execution_count"], bool(cell["outputs"])) == (number, True)
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    np.testing.assert_allclose(names["frames"]["time"], np.array(ticks) / 1000, atol=1e-5)
    segments = names["segments"]
    assert (segments["begin"].iloc[0], segments["frames"].sum()) == (0, 130)
    assert (segments["begin"].to_numpy()[1:] == segments["end"].to_numpy()[:-1]).all()
    assert cv2.imread("figure.png").std() > 20


def test_the_tutorial_holds_nothing_of_the_machine_that_ran_it():
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert not [word for word in ("/tmp", "/home", "/root", "Traceback", "Warning") if word in text]
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert [output["output_type"] for output in outputs].count("display_data") == 1

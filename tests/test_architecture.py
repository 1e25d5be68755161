"""Architecture rules: allowed imports, files that DVC watches, files in the package, names."""

import ast
import builtins
import re
import tomllib
from collections import Counter
from pathlib import Path

import click
import pytest
import yaml
from helpers.run_cli import ROOT

from ceflpipe.pipeline.cli import cli
from ceflpipe.pipeline.commands.cmd_encoder import SUBCOMMANDS

PACKAGES = ("pipeline", "stages", "cache")
ALLOWED = {
    "__init__.py": {"pipeline"},
    "pipeline": {"pipeline", "stages", "cache"},
    "stages": {"stages", "cache"},
    "cache": {"cache"},
}
CACHE_READER = ["cache/hdf5.py"]
"""Stages whose command reads the feature cache in pipeline/ depend on this file too, though their own code does not import it."""
# what each stage of dvc.yaml runs, besides the command that passes parameters on
ENTRIES = {
    "demo": ["stages/demo/demo_dataset.py"],
    "manifest": [
        "stages/manifest/scan.py",
        "stages/manifest/manifest.py",
        *(str(file.relative_to(ROOT)) for file in sorted((ROOT / "stages/manifest/loaders").rglob("*.py"))),
    ],
    "encoder": ["stages/encoder/build.py"],
    "encoder-file": ["stages/encoder/build.py"],
    "encoder-network": ["stages/encoder/build_network.py"],
    "config": ["stages/extract/extract_config.py", "stages/heads/train_config.py", "stages/encoder/weights.py"],
    "extract": ["stages/extract/extract.py"],
    "train-heads": ["stages/heads/cross_validation.py", *CACHE_READER],
    "report": ["stages/report/html.py", *CACHE_READER],
}
SWEEP_ENTRIES = {
    "run": ["stages/heads/cross_validation.py", *CACHE_READER],
    "figure-8": [
        "stages/heads/sweep.py",
        "stages/heads/comparison.py",
        "stages/report/sweep_results.py",
        *CACHE_READER,
    ],
    "report": ["stages/report/html.py", *CACHE_READER],
}
TEMPLATES = {
    "stages/report/html.py": "stages/report/*.jinja",
    "stages/extract/retinaface.py": "stages/extract/pretrained/*.onnx",
}
"""Files that a module reads besides those it imports."""
PRETRAINED = "stages/encoder/pretrained/*.safetensors"
"""Encoders that come with the package: their hash is part of a data set's configuration, which all stages after it compare."""
TESTS = sorted((ROOT / "tests").rglob("*.py"))
STAGE_DEPS = [("dvc.yaml", stage, ENTRIES) for stage in ENTRIES]
STAGE_DEPS += [("configs/sweep/dvc.yaml", stage, SWEEP_ENTRIES) for stage in SWEEP_ENTRIES]


def sources() -> list[Path]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [ROOT / "__init__.py", *files]


def imports_of(path: Path) -> set[Path]:
    """Return the files of this project that a file imports, also inside functions."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parent
            for _ in range(node.level - 1):
                base = base.parent
            base = base.joinpath(*node.module.split(".")) if node.module else base
            for candidate in [base.with_suffix(".py"), *(base / f"{alias.name}.py" for alias in node.names)]:
                if candidate.is_file():
                    imported.add(candidate)
            if (base / "__init__.py").is_file():
                imported.add(base / "__init__.py")
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(name.split(".")[0] == "ceflpipe" for name in names), (
                f"{path}: imports ceflpipe by name; use relative imports"
            )
    return imported


def closure(entries: list[str]) -> set[str]:
    """Return all files below stages/ and cache/ that the entries need, without the empty __init__ files."""
    waiting, visited = [ROOT / entry for entry in entries], set()
    while waiting:
        path = waiting.pop()
        if path in visited:
            continue
        visited.add(path)
        waiting.extend(imports_of(path))
    return {str(path.relative_to(ROOT)) for path in visited if path.name != "__init__.py"}


def needed_files(entries: list[str]) -> set[str]:
    """Return the closure of the entries and the templates that it reads."""
    needed = closure(entries)
    templates = [path for module, pattern in TEMPLATES.items() if module in needed for path in ROOT.glob(pattern)]
    return needed | {str(path.relative_to(ROOT)) for path in templates}


def test_imports_go_one_way():
    violations = []
    for path in sources():
        package = path.relative_to(ROOT).parts[0]
        for target in imports_of(path):
            other = target.relative_to(ROOT).parts[0]
            if other in PACKAGES and other not in ALLOWED[package]:
                violations.append(f"{path.relative_to(ROOT)} imports {target.relative_to(ROOT)}")
    assert not violations


def test_extract_and_heads_do_not_import_each_other():
    violations = [
        f"{path.relative_to(ROOT)} needs {other}"
        for stage, other_stage in (("extract", "heads"), ("heads", "extract"))
        for path in sorted((ROOT / "stages" / stage).rglob("*.py"))
        for other in sorted(closure([str(path.relative_to(ROOT))]))
        if other.startswith(f"stages/{other_stage}/")
    ]
    assert not violations


@pytest.mark.parametrize(("file", "entries"), [("dvc.yaml", ENTRIES), ("configs/sweep/dvc.yaml", SWEEP_ENTRIES)])
def test_every_stage_of_dvc_has_its_entries_here(file, entries):
    assert set(entries) == set(yaml.safe_load((ROOT / file).read_text())["stages"])


@pytest.mark.parametrize(("file", "stage", "entries"), STAGE_DEPS)
def test_dvc_deps_of_a_stage_are_the_code_that_it_runs(file, stage, entries):
    """Neither less, which would keep outdated results, nor more, which would run the stage again without a reason."""
    entry = yaml.safe_load((ROOT / file).read_text())["stages"][stage]
    listed = set()
    for dep in entry.get("do", entry)["deps"]:
        if not dep.startswith(("stages", "cache")):
            continue
        path = ROOT / dep
        assert path.exists(), f"{file}: {stage} depends on {dep}, which is not there"
        files = [f for f in path.rglob("*") if f.is_file() and f.suffix != ".pyc"] if path.is_dir() else [path]
        listed |= {str(f.relative_to(ROOT)) for f in files if f.name != "__init__.py"}
    needed = needed_files(entries[stage])
    if stage == "config":
        needed |= {str(path.relative_to(ROOT)) for path in ROOT.glob(PRETRAINED)}
    assert not needed - listed, f"{file}: {stage} should also depend on {sorted(needed - listed)}"
    assert not listed - needed, f"{file}: {stage} depends on {sorted(listed - needed)}, which it does not use"


def test_every_folder_with_code_is_packaged():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    present = {
        "ceflpipe",
        "ceflpipe.configs",
        *(".".join(["ceflpipe", *p.parent.relative_to(ROOT).parts]) for p in sources()),
    }
    assert sorted(listed) == sorted(present)


LIBRARY_MODULES = {
    "h5py": {"cache/hdf5.py"},
    "yaml": {"pipeline/config.py"},
    "matplotlib": {"stages/plots/"},
    "PIL": {"stages/predict/formats/person_sheet.py", "stages/predict/overlay.py"},
    "av": {
        "stages/extract/interlacing.py",
        "stages/extract/video_reader.py",
        "stages/predict/overlay.py",
        "stages/predict/sound.py",
    },
    "joblib": {"pipeline/executor.py"},
    "scipy": {"stages/heads/intervals.py"},
    "openvino": {"stages/extract/encoder_openvino.py"},
    "onnx": {"stages/encoder/onnx_export.py", "stages/encoder/onnx_graph.py", "stages/extract/insightface_detector.py"},
    "onnxruntime": {"stages/onnx_session.py"},
    "timm": {"stages/encoder/build_timm.py"},
    "huggingface_hub": {"stages/encoder/hub.py"},
    "torchvision": {"stages/encoder/weights.py", "stages/encoder/build.py"},
    "jinja2": {"stages/report/html.py"},
    "click": {"pipeline/cli.py", "pipeline/commands/"},
    "rich": {"pipeline/console.py"},
}


@pytest.mark.parametrize("library", LIBRARY_MODULES)
def test_a_library_is_imported_by_its_modules_only(library):
    users = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            if any(name.split(".")[0] == library for name in names):
                users.add(str(path.relative_to(ROOT)))
    modules = LIBRARY_MODULES[library]
    violations = {
        user for user in users if not any(user == m or (m.endswith("/") and user.startswith(m)) for m in modules)
    }
    assert not violations


def test_of_stages_only_predict_and_report_import_extract_and_heads():
    """Stage one and stage two meet in the feature cache. Only folders that show or apply both import both, directly or not.

    The rule is about stages/: pipeline/ orchestrates the stages, so it imports all of them.
    """
    needed: dict[str, set[str]] = {}
    for path in sorted((ROOT / "stages").rglob("*.py")):
        folders = {folder_of(ROOT / file) for file in closure([str(path.relative_to(ROOT))])}
        needed.setdefault(folder_of(path), set()).update(folders)
    both = {folder for folder, folders in needed.items() if {"stages/extract", "stages/heads"} <= folders}
    assert both <= {"stages/predict", "stages/report"}


def test_folders_have_no_import_cycle():
    """What a folder of stages/ imports, also by way of others, never imports it back."""
    graph: dict[str, set[str]] = {}
    for path in sources():
        graph.setdefault(folder_of(path), set()).update(folder_of(target) for target in imports_of(path))
    for folder in graph:
        visited, waiting = set(), list(graph[folder] - {folder})
        while waiting:
            other = waiting.pop()
            if other not in visited:
                visited.add(other)
                waiting += graph.get(other, set()) - {other}
        assert folder not in visited, f"{folder} is imported back by what it imports"


def folder_of(path: Path) -> str:
    """Return pipeline, cache or stages/NAME; a file directly in stages/ is a folder of its own."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "/".join(parts[:2]) if parts[0] == "stages" else parts[0]


def test_file_names_are_unique():
    names = Counter(path.name for path in [*sources(), *TESTS] if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


def test_modules_begin_with_a_docstring_that_is_not_a_question():
    for path in [*sources(), *TESTS]:
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        assert first.startswith('"""'), f"{path.relative_to(ROOT)} does not begin with a docstring"
        assert "?" not in first, f"{path.relative_to(ROOT)} begins with a question"


PRIVATE_WORDS = """
wishes wish settle settled judge judged said tell told watched which places place seen drawn beside likeness strongest surely
everyone nobody somebody wanted found anew asked meant mine theirs picture pictures recipe film films world lived about
room rooms stranger strangers acted lying patience odd tidy kin unnested somewhere
"""
"""Words that names once had in place of the field's terms."""


def has_private_word(name: str) -> bool:
    return bool(
        set(PRIVATE_WORDS.split()) & set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
    )


def strings_in(node: ast.AST) -> set[str]:
    """Return the keys and column names that a node writes or reads as text."""
    if isinstance(node, ast.Dict):
        values = node.keys
    elif isinstance(node, ast.Subscript):
        values = [node.slice]
    elif isinstance(node, ast.Tuple | ast.List):
        values = node.elts
    else:
        return set()
    return {
        value.value
        for value in values
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value.isidentifier()
    }


def identifiers_of(path: Path) -> set[str]:
    """Return the names in a file, and the keys that it writes or reads as text: columns of CSV files, keys of JSON files."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names |= {node.attr} - ({"which"} if ast.unparse(node) == "shutil.which" else set())
        elif isinstance(node, ast.arg | ast.keyword):
            names.add(node.arg or "")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ExceptHandler):
            names.add(node.name or "")
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.alias):
            names |= {node.name, node.asname or ""}
        names |= strings_in(node)
    return names - set(dir(builtins))  # FileNotFoundError


def test_identifiers_and_keys_use_the_terms_of_the_field():
    private = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*sources(), *TESTS]
        for name in identifiers_of(path)
        if has_private_word(name) or re.match("(MOST|FEWEST)_", name)
    }
    assert not private, "\n".join(sorted(private))


def test_file_and_folder_names_use_the_terms_of_the_field():
    files = [path for folder in (*PACKAGES, "tests", "configs") for path in (ROOT / folder).rglob("*")]
    names = {part for path in files for part in path.relative_to(ROOT).parts if "__pycache__" not in path.parts}
    assert len(names) > 100
    assert not {name for name in names if has_private_word(name)}


def test_options_and_configuration_keys_use_the_terms_of_the_field():
    context = click.Context(cli)
    names = set(cli.list_commands(context))
    commands = [cli.get_command(context, name) for name in list(names)]
    for command in filter(None, [*commands, *SUBCOMMANDS.values()]):
        for parameter in command.params:
            names |= {parameter.name or "", *parameter.opts, *parameter.secondary_opts}
            names |= set(map(str, getattr(parameter.type, "choices", ())))
    for file in [ROOT / "params.yaml", *(ROOT / "configs").glob("*.yaml")]:
        names |= keys_of(yaml.safe_load(file.read_text()))
    assert len(names) > 100
    assert not {name for name in names if has_private_word(name)}


def keys_of(value: object) -> set[str]:
    """Return the keys of a mapping and of all mappings in it."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set(map(str, value if isinstance(value, dict) else ())).union(*map(keys_of, values))


def test_no_shell_command_is_built_and_nothing_unsafe_is_loaded():
    """A file name that holds a semicolon or a YAML tag that names a class must stay text."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            words = ast.unparse(node.func)
            assert words not in ("os.system", "os.popen", "eval", "exec", "pickle.load", "pickle.loads", "yaml.load"), (
                path
            )
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert keywords.get("shell", "False") == "False", path
            if words == "torch.load":
                assert keywords.get("weights_only") == "True", path


def test_sources_have_no_broad_except_and_no_assert():
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), path
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, path
                allowed = "Exception" if path == ROOT / "pipeline/cli.py" else ""  # the outermost handler: exit code 3
                assert ast.unparse(node.type) not in {"Exception", "BaseException"} - {allowed}, path

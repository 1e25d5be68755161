"""Every command and option that a text of the source code tells people to type exists."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
from helpers.run_cli import ROOT

from ceflpipe.pipeline.cli import COMMANDS, cli
from ceflpipe.pipeline.commands.cmd_encoder import SUBCOMMANDS
from ceflpipe.stages.encoder.weights import BUILDABLE, build_command

COMMAND = re.compile(r"\bceflpipe ([a-z][a-z-]+)((?: (?!and\b|then\b|to\b|or\b)[^\s;,()`]+)*)")
"""A command and the words after it, up to the end of the clause."""
OTHER_OPTIONS = {"--help", "--version", "--resources"}
"""Options of every command, and one of Dask's workers."""
TWO_WORDS = {f"encoder {name}": command for name, command in SUBCOMMANDS.items()}
"""Commands of two words, which `ceflpipe encoder` calls."""
PROSE = {"did", "may", "or", "runs", "wrote"}
"""Words that follow the name of the program in a sentence about it."""


def text_of(node):
    """Return a string or f-string; a value that is inserted is VALUE (build_command has two, which its own test covers)."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
    return node.value


def texts(folder):
    """Yield (file, text) of every string of the code; of an f-string the whole."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.JoinedStr) or (
                isinstance(node, ast.Constant) and isinstance(node.value, str)
            )
            if is_text and id(node) not in parts:
                yield path.relative_to(ROOT), " ".join(text_of(node).split())


def options_of(name):
    command = TWO_WORDS.get(name) or cli.get_command(click.Context(cli), name)
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("folder", ["cache", "stages", "pipeline"])
def test_commands_and_options_in_messages_exist(folder):
    known = {name: options_of(name) for name in (*COMMANDS, *TWO_WORDS)}
    everywhere = set().union(*known.values(), OTHER_OPTIONS)
    wrong, count = [], 0
    for path, text in texts(folder):
        for name, rest in COMMAND.findall(text):
            if name in PROSE:
                continue
            count += 1
            name = next((two for two in TWO_WORDS if f"{name}{rest}".startswith(two)), name)
            options = {word.split("=")[0].rstrip(".:") for word in rest.split() if word.startswith("-")}
            if name not in known:
                wrong.append(f"{path}: no command {name}: {text[:100]}")
            elif options - known[name] - OTHER_OPTIONS:
                wrong.append(f"{path}: {name} has no {', '.join(options - known[name])}: {text[:100]}")
            if name == "encoder" and (words := rest.split()) and not words[0].startswith("-"):
                source = words[0].rstrip(".:")
                if source not in (*BUILDABLE, "SOURCE", "VALUEVALUE") and ":" not in source:
                    wrong.append(f"{path}: encoder has no source {source}: {text[:100]}")
        for option in re.findall(r"(?<![\w(-])--[a-z][a-z-]+", text):
            if option not in everywhere:
                wrong.append(f"{path}: no command has {option}: {text[:100]}")
    assert not wrong, "\n".join(wrong)
    assert count


@pytest.mark.parametrize(
    "path", ["artifacts/weights/actors.safetensors", "artifacts/weights/random18.safetensors", "a b/x.safetensors"]
)
def test_the_command_that_builds_an_encoder_is_one(path):
    name, source, *options = shlex.split(build_command(Path(path)))[1:]
    command = cli.get_command(click.Context(cli), name)
    values = command.make_context(name, [source, *options]).params
    assert source in BUILDABLE or source == "file:CHECKPOINT"
    assert (values["out"] or Path(f"artifacts/weights/{values['name'] or source}.safetensors")) == Path(path)

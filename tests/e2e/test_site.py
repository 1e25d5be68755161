"""The documentation site, as it is published: built without network, every page like in the repository, read in Chromium."""

import ast
import functools
import json
import os
import posixpath
import re
import subprocess
import tarfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
import yaml
from helpers.browser import Browser, chromium
from helpers.docs import PAGES
from helpers.run_cli import ROOT, env_with_path
from markdown_it import MarkdownIt

import ceflpipe

pytestmark = pytest.mark.slow
in_chromium = pytest.mark.skipif(chromium() is None, reason="needs Chromium; on Debian: apt-get install chromium")
VERSION = ceflpipe.__version__
URL_PATHS = {page: page.stem for page in (*PAGES, ROOT / "CHANGELOG.md", ROOT / "docs/tutorial.ipynb")}
URL_PATHS[ROOT / "README.md"] = ""
"""Every page of the repository, with its path on the site."""
COUNTED = ("h1", "h2", "h3", "h4", "li", "pre", "table", "tr", "td", "th", "img", "em", "strong", "code", "blockquote")
AUTHOR = {f"GIT_{role}_{key}": "docs" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
NO_NETWORK = """
import socket
def refuse(*address, **_):
    open({log!r}, "a").write(repr(address))
    raise OSError("no network")
socket.getaddrinfo = socket.socket.connect = refuse
"""


@dataclass
class Site:
    """A published site: ``folder`` of its newest version, and its ``url``."""

    folder: Path
    url: str
    requested: str


@dataclass
class Parsed(HTMLParser):
    """Elements of a page: how many there are of each kind, their ids and addresses, and the text of its article."""

    only: str = ""
    counts: Counter = field(default_factory=Counter)
    ids: set = field(default_factory=set)
    addresses: list = field(default_factory=list)
    text: str = ""

    def __post_init__(self):
        super().__init__()
        self.open: list[str] = []
        self.inside = not self.only
        self.hidden = False

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids |= {values.get("id"), values.get("name")}
        self.addresses += [values[key] for key in ("href", "src") if values.get(key)]
        self.inside |= tag == self.only
        self.hidden |= values.get("class") == "headerlink"
        if self.inside:
            self.counts[tag] += 1

    def handle_endtag(self, tag):
        self.inside &= not (self.only and tag == self.only)
        self.hidden &= tag != "a"

    def handle_data(self, data):
        if self.inside and not self.hidden:
            self.text += data


def parse(html, only=""):
    page = Parsed(only)
    page.feed(html)
    return page


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as the commands of the workflow publish it: on a branch of another repository than this one, and served from there."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "python").mkdir()
    (folder / "python/sitecustomize.py").write_text(NO_NETWORK.format(log=str(folder / "requested")))
    for command in ("init --bare origin", "init clone", "-C clone commit --allow-empty -m start"):
        subprocess.run(["git", *command.split()], cwd=folder, env=os.environ | AUTHOR, check=True, capture_output=True)
    subprocess.run(["git", "-C", folder / "clone", "remote", "add", "origin", folder / "origin"], check=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder / "served"))) as server:
        url = f"http://127.0.0.1:{server.server_port}/project/"
        steps = yaml.safe_load((ROOT / ".github/workflows/docs.yml").read_text())["jobs"]["publish"]["steps"]
        commands = [step["run"] for step in steps if step.get("run", "").startswith("mike ")]
        assert len(commands) == 2
        for command in commands:
            done = publish(command, VERSION, folder, url)
            assert done.returncode == 0, done.stderr
            assert "WARNING" not in done.stderr
        branch = subprocess.run(
            ["git", "archive", "gh-pages"], cwd=folder / "origin", capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=BytesIO(branch)) as pages:
            pages.extractall(folder / "served/project", filter="tar")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        log = folder / "requested"
        yield Site(folder / f"served/project/{VERSION}", f"{url}{VERSION}/", log.read_text() if log.exists() else "")
        server.shutdown()


def publish(command, version, folder, url):
    """Run a command of the workflow, as for the tag of a version, without network; the site is built in a folder, and pushed there."""
    env = env_with_path(
        GIT_DIR=str(folder / "clone/.git"), SITE_DIR=str(folder / "built"), SITE_URL=url, NO_MKDOCS_2_WARNING="1",
        PYTHONPATH=str(folder / "python"), GITHUB_REF_NAME=f"v{version}", **AUTHOR,
    )  # fmt: skip
    return subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_every_page_of_the_repository_is_a_page_built_without_network(site):
    built = {path.parent.relative_to(site.folder).as_posix() for path in site.folder.rglob("index.html")}
    assert built == {url_path or "." for url_path in URL_PATHS.values()}
    assert site.requested == ""


@pytest.mark.parametrize(
    "page", [p for p in URL_PATHS if p.suffix == ".md" and p.name != "api.md"], ids=lambda page: page.name
)
def test_a_page_reads_as_in_the_repository(site, page):
    """Its text and its elements are those that another reader of Markdown, CommonMark's, finds in the file."""
    expected = parse(MarkdownIt("commonmark").enable("table").render(page.read_text()))
    article = parse((site.folder / URL_PATHS[page] / "index.html").read_text(), only="article")
    assert "".join(article.text.split()) == "".join(expected.text.split())
    assert [article.counts[tag] for tag in COUNTED] == [expected.counts[tag] for tag in COUNTED], COUNTED


def test_all_links_and_images_resolve(site):
    pages = {path: parse(path.read_text()) for path in site.folder.rglob("*.html")}
    followed = 0
    for path, page in pages.items():
        base = posixpath.join(site.url, path.relative_to(site.folder).as_posix())
        for address in page.addresses:
            target, anchor = urldefrag(urljoin(base, address))
            target = target.replace(f"{site.url.removesuffix(f'{VERSION}/')}latest/", site.url)
            if not target.startswith(site.url):
                assert re.match(r"https?://(?!127)|mailto:|data:", target), f"{path}: {address}"
                continue
            file = site.folder / unquote(target.removeprefix(site.url))
            file = file / "index.html" if file.is_dir() else file
            assert file.is_file(), f"{path}: {address}"
            assert not anchor or anchor in pages[file].ids or anchor == "__skip", f"{path}: {address}"
            followed += 1
    assert followed > 500


def test_the_version_is_that_of_the_package_and_another_one_is_refused(site):
    assert json.loads((site.folder.parent / "versions.json").read_text()) == [
        {"version": VERSION, "title": VERSION, "aliases": ["latest"]}
    ]
    assert (site.folder.parent / "latest").resolve() == site.folder.resolve()
    assert f"ceflpipe {VERSION}" in parse((site.folder / "index.html").read_text()).text
    done = publish("mike deploy 99.0", "99.0", site.folder.parents[2], site.url)
    assert done.returncode != 0
    assert f"these are the pages of version {VERSION}, not 99.0" in done.stderr


@in_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_the_screen_and_ask_for_nothing_outside(site, browser, width):
    for url_path in URL_PATHS.values():
        browser.open(urljoin(site.url, f"{url_path}/" if url_path else ""), width)
        browser.wait_for("document.querySelector('.md-version__current')?.textContent.trim()")
        assert browser.errors() == [], url_path
        assert [url for url in browser.requests() if not url.startswith(site.url.removesuffix(f"{VERSION}/"))] == [], (
            url_path
        )
        scroll, broken = browser.evaluate(
            """[document.documentElement.scrollWidth, [...document.images].filter(image => !(image.complete && image.naturalWidth > 1)
               || image.getBoundingClientRect().right > innerWidth).map(image => image.src.slice(0, 80))]"""
        )
        assert (scroll, broken) == (width, []), url_path


@in_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_search_finds_a_term(site, browser, width):
    """As a reader types it; the result leads to the page, where the term is marked."""
    browser.open(site.url, width)
    browser.evaluate("document.querySelector('label[for=__search]').click()")
    browser.evaluate("document.querySelector('.md-search__input').focus()")
    browser.wait_for("!document.querySelector('.md-search-result__meta').textContent.includes('Initializing')")
    for key in "Slurm":
        browser.call("Input.dispatchKeyEvent", type="keyDown", text=key, key=key)
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=key)
    browser.wait_for("document.querySelector('.md-search-result__link')?.href.includes('/clusters/?h=slurm')")
    assert browser.errors() == []
    browser.open(browser.evaluate("document.querySelector('.md-search-result__link').href"), width)
    browser.wait_for("document.querySelector('article mark')?.textContent === 'Slurm'")


@in_chromium
def test_the_reference_shows_every_public_name_with_its_docstring(site, browser):
    browser.open(f"{site.url}api/", 1280)
    shown = browser.evaluate(
        """Object.fromEntries([...document.querySelectorAll('.doc-object')].map(each => [each.querySelector('.doc-heading').id,
           each.querySelector('.doc-contents').innerText]))"""
    )
    definitions = ast.parse((ROOT / "pipeline/api.py").read_text()).body
    docstrings = {node.name: ast.get_docstring(node) for node in definitions if hasattr(node, "name")}
    for name in ceflpipe.__all__:
        docstring = docstrings[name]
        assert len(docstring) > 100
        words = " ".join(re.sub(r"`+", "", docstring).split())
        assert words in " ".join(shown[f"ceflpipe.{name}"].split()), name
    assert "p_<label>" in " ".join(shown.values())
    assert not re.search(r"\n>>> ", browser.evaluate("[...document.querySelectorAll('article blockquote')].join()"))
    links = browser.evaluate(
        "[...document.querySelectorAll('.doc-signature a')].map(link => link.getAttribute('href'))"
    )
    assert {"#ceflpipe.pipeline.api.ExtractOptions", "#ceflpipe.stages.heads.run_io.Run"} <= set(links)


@in_chromium
def test_the_notebook_shows_its_code_outputs_and_figure_and_can_be_downloaded(site, browser):
    notebook = ROOT / "docs/tutorial.ipynb"
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    browser.open(f"{site.url}tutorial/", 390)
    code, tables, figures, link = browser.evaluate(
        """[[...document.querySelectorAll('article pre')].map(each => each.innerText.trimEnd()), document.querySelectorAll('article table').length,
           [...document.querySelectorAll('article img')].map(each => each.getBoundingClientRect().width), document.querySelector('article [href$=ipynb]').href]"""
    )
    assert [cell for cell in cells if "".join(cell["source"]) not in code] == []
    outputs = [output["data"] for cell in cells for output in cell["outputs"]]
    assert tables == sum("text/html" in data for data in outputs)
    assert [each for each in outputs if [*each] == ["text/plain"] and "".join(each["text/plain"]) not in code] == []
    assert len(figures) == 1
    assert 300 < figures[0] < 390
    assert (site.folder / link.removeprefix(site.url)).read_bytes() == notebook.read_bytes()


@in_chromium
def test_pages_are_dark_where_the_reader_wants_them_dark(site, browser):
    light = {}
    for dark in (False, True):
        browser.open(f"{site.url}predicting/", 1280, dark=dark)
        for what in ("body", "article pre code", "article table"):
            style = f"getComputedStyle(document.querySelector('{what}'))"
            colours = browser.evaluate(f"[{style}.color, {style}.backgroundColor]")
            light[dark, what] = [sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 765 for colour in colours]
    assert [light[dark, "body"][1] > 0.5 for dark in (False, True)] == [True, False]
    for (dark, what), (text, ground) in light.items():
        assert abs(text - ground) > 0.35, (dark, what)

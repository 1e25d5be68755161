# `make demo` and `make test` do all the set-up on a machine with Python 3.11+, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test quick lint bench chaos fuzz docs pictures constraints licences clean environment

demo: environment
	mkdir -p artifacts/weights
	dvc repro
	@echo "report: $(CURDIR)/artifacts/reports/demo/report.html"

# one process per core, one thread per process; the tests of a file share its fixtures. Files run in the order of their
# names: xdist would start files with few tests last, which are the slow ones
test quick: export OMP_NUM_THREADS = 1
test quick: PYTEST := python -m pytest -n auto --dist loadfile --no-loadscope-reorder
test: environment
	$(PYTEST)

quick: environment
	$(PYTEST) -m "not slow"

lint: environment
	ruff check . && ruff format --check . && pyright
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

# speed of both stages, compared with plain loops in the same process
bench: environment
	ceflpipe encoder actors --quiet
	python tests/bench/stage_one.py
	OMP_WAIT_POLICY=PASSIVE python tests/bench/stage_two.py

# kill -9 at random moments, run again, compare
ROUNDS ?= 20
chaos: environment
	python tests/chaos/rounds.py --rounds $(ROUNDS)

# thousands of broken files
fuzz: environment
	python tests/fuzz/run.py

# the documentation site, without network; with a warning or a broken link it is not built
docs: environment
	NO_MKDOCS_2_WARNING=1 mkdocs build
	@echo "site: $(CURDIR)/artifacts/site; mkdocs serve shows it in a browser"

# the README's pictures, from the demo's report (a sweep over clips takes a few minutes)
pictures: environment
	dvc repro
	ceflpipe sweep --dataset demo --quiet
	ceflpipe report --dataset demo --quiet
	mkdir -p docs/pictures
	cp artifacts/reports/demo/filmstrip_surprise_correct.png docs/pictures/filmstrip.png
	cp artifacts/reports/demo/confusion.png docs/pictures/confusion.png
	cp artifacts/reports/demo/sweep_num_clips.png docs/pictures/sweep.png

# the versions of this environment, and the licences of what ceflpipe needs
constraints: environment
	python tests/helpers/dependencies.py constraints > constraints.txt
licences: environment
	python tests/helpers/dependencies.py licences > docs/licences.md

environment: $(VENV)/installed

# made again only when the dependencies change
$(VENV)/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'ceflpipe needs Python 3.11 or newer; try make PYTHON=python3.12')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dvc,dev]"
	touch $@

clean:
	rm -rf artifacts data/demo build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	mkdir -p artifacts/weights && touch artifacts/weights/.gitkeep
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

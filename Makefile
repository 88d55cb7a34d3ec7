# The README's two commands: `make talk` holds a conversation, `make test` passes the tests.
# Each does all its own set-up. Wheels found in wheels/ are used instead of being built.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PIP_FIND_LINKS := $(PIP_FIND_LINKS) $(wildcard $(CURDIR)/wheels)

.PHONY: talk test lint typed-tree wheels clean

talk: $(VENV)/.runtime
	$(BIN)/edgevoice models pull default
	$(BIN)/edgevoice talk --auto

test: $(VENV)/.dev lint
	$(BIN)/edgevoice models pull default
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=85

lint: $(VENV)/.dev typed-tree
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd build/typed && ../../$(BIN)/mypy --strict --config-file ../../pyproject.toml -p edgevoice

# llama-cpp-python has no wheels on PyPI and compiles for minutes. Keep what it made, and carry it
# to other machines of the same kind.
wheels: $(VENV)/bin/python
	$(PIP) wheel --no-deps --wheel-dir wheels llama-cpp-python==0.3.36 'PyAudio>=0.2.14,<0.3'

$(VENV)/bin/python:
	@tools/system-packages python3-venv python3-dev g++ make portaudio19-dev flite
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml
	$(PIP) install --progress-bar on -e '.[audio,espeak,convert]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	@tools/system-packages espeak-ng flite pocketsphinx-testdata pulseaudio pulseaudio-utils \
		libasound2-plugins shellcheck sox zstd
	$(PIP) install --progress-bar on -e '.[dev]'
	@touch $@ $(VENV)/.runtime

# mypy cannot follow setuptools' package-dir, so it looks at the package as it will be installed.
typed-tree:
	@rm -rf build/typed && mkdir -p build/typed/edgevoice
	@for f in edgevoice/*; do ln -sfn ../../../$$f build/typed/edgevoice/; done
	@for d in export quant devices; do ln -sfn ../../../$$d build/typed/edgevoice/$$d; done

clean:
	rm -rf build dist $(VENV) *.egg-info

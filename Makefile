# make demo | test | lint | sanitize | bench | instructions | trust | clean. Each first makes .venv, with pinned versions and the extension, where it is not.
# PYTHON names the interpreter that .venv is made with.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
PACKAGES := .venv/packages
INSTALLED := .venv/installed
PEERS := .venv/peers
SOURCES := setup.py pyproject.toml $(wildcard csrc/*.* csrc/*/*.*)
RESULTS := bench/results/cpu.json
WATCHED := -fsanitize=address,undefined
OPS := wtsm wtsm_conv2d double_conv2d_pool normalize bigsmall_inputs every_op instruction_sets

.PHONY: demo test lint sanitize bench instructions trust clean

define COMPARE
import json, pandas
truth, found = pandas.read_csv("demo/face.csv"), json.load(open("demo/measurement.json"))
for name in ("heart_rate", "respiration_rate"):
    value, unit = found[name]["value"], found[name]["unit"]
    measured = "refused: " + found[name]["note"] if value is None else f"{value:5.1f}"
    print(f"{name:16}  true {truth[name].mean():5.1f}  measured {measured}  {unit}")
endef
export COMPARE

demo: $(INSTALLED)
	mkdir -p demo
	bigsmall synthesize demo/face.mkv --heart-rate 72 --respiration-rate 15
	bigsmall measure demo/face.mkv -o demo
	@python -c "$$COMPARE"
	@ls demo

test: $(INSTALLED)
	python -m pytest

lint: $(INSTALLED)
	ruff check .
	mypy

# the ops' tests with a compiled library that watches its addresses and undefined behaviour (g++; about ten minutes)
sanitize: $(INSTALLED)
	CFLAGS="$(WATCHED) -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1" LDFLAGS="$(WATCHED)" \
		python setup.py -q build --build-base build/sanitize --build-lib build/sanitize/lib
	PYTHONPATH=build/sanitize/lib ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$(for l in asan ubsan stdc++; do g++ -print-file-name=lib$$l.so; done | tr '\n' ' ')" \
		pytest -q -p no:cacheprovider $(addprefix tests/kernels/test_,$(addsuffix .py,$(OPS)))

# on a quiet machine, about half an hour; a row that is wrong is left out, named, and makes it fail after the report
bench: $(INSTALLED) $(PEERS)
	mkdir -p $(dir $(RESULTS))
	python -m pytest bench/ --benchmark-json=$(RESULTS); ran=$$?; python bench/report.py $(RESULTS) && exit $$ran
	python bench/pipeline.py -o bench/results/pipeline

# instruction counts beside the last ones committed: for a noisy machine (needs valgrind; some minutes)
instructions: $(INSTALLED)
	python bench/instructions.py $(addprefix --against ,$(wildcard bench/results/instructions.json))

# how far the rates can be trusted: simulates and measures 690 videos into trust/, and resumes there
trust: $(INSTALLED)
	python bench/trust.py measure trust
	python bench/trust.py evaluate trust

clean:
	rm -rf .venv build dist demo trust *.egg-info bigsmall_kernels/*.so bigsmall_kernels/_build.json

$(PACKAGES): requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

# without isolation: the build sees the pinned torch and ninja above
$(INSTALLED): $(PACKAGES) $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

$(PEERS): $(PACKAGES) requirements-bench.txt
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --requirement requirements-bench.txt
	touch $@

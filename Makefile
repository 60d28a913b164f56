# make book   build the book           make test   everything that CI runs
# Needs python3 (3.10 to 3.13); everything else goes into .venv.

PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
BIN := $(VENV)/bin
UV := $(BIN)/python -m uv

# The same for the notebooks (tools/nb.py) and the tests (tests/conftest.py):
# little start-up noise, the same digits everywhere, the same random checks,
# and no threads for matrices of three rows, which stall on a busy machine.
export TF_CPP_MIN_LOG_LEVEL := 3
export TF_ENABLE_ONEDNN_OPTS := 0
export CUDA_VISIBLE_DEVICES :=
export OPENBLAS_NUM_THREADS := 1
export TF_MAMBA_EDU_CHECK_SEED := 0

PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile -p no:cacheprovider
NBVAL := -p nbval_kernel --nbval --nbval-current-env --nbval-cell-timeout=600
NOTEBOOKS := book exercises solutions
CODE := tf_mamba_edu tests tools benchmarks
WARNINGS := awk '{gsub(/\033\[[0-9;]*m/, "")} \
    /(WARNING|ERROR): / && !/absl/ && !seen[$$0]++ {print; n++} END {exit !n}'

# What has been compiled stays in memory: a process for all combinations would need 12 GB.
MODES := $(foreach m,recurrent associative fused auto,$(foreach n,eager traced unknown \
    compiled fit fit_compiled,"$m- and -$n-"))

# $(call step,NAME,COMMAND) runs a command and prints its time.
define step
@start=$$(date +%s); $(2); status=$$?; \
echo "== $(1): $$(($$(date +%s) - start)) s"; exit $$status
endef

.PHONY: help book links test test-full quick nb check package-tests bench lint lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

# Without its doctrees a second try reads all pages again, and warns again.
book: $(VENV)/.ok ## build the book: _build/html/index.html
	$(call step,book,$(BIN)/jupyter-book build . -W -n --keep-going \
	    > build.log 2>&1 || { $(WARNINGS) build.log || tail -n 40 build.log; \
	    rm -rf _build/.doctrees; false; })
	@echo "The book is in _build/html/index.html. To read it in a browser:"
	@echo "    python3 -m http.server -d _build/html 8000    # http://localhost:8000"

links: $(VENV)/.ok ## whether the addresses in the book answer (needs a network)
	$(call step,links,$(BIN)/jupyter-book build . --builder linkcheck)

test: check book ## package tests, notebooks run again, and the book (what CI runs)
	$(call step,package tests and notebooks,PYTHONPATH=tools $(PYTEST) $(NBVAL) tests $(NOTEBOOKS))

test-full: $(VENV)/.ok ## the selective scan in all combinations of settings: about an hour
	$(call step,all combinations,for mode in $(MODES); do \
	    $(PYTEST) --dist load -m full tests/test_scan_modes.py -k "$$mode" || exit; done)

quick: check book package-tests ## package tests and the book, no notebook runs

nb: $(VENV)/.ok ## run the notebooks whose text or package code changed
	$(call step,notebooks,$(BIN)/python tools/nb.py)

check: $(VENV)/.ok ## notebooks, prose and equation map against their sources, nothing runs
	$(call step,check,$(BIN)/python tools/nb.py --check \
	    && $(BIN)/python tools/equation_map.py --check)

package-tests: $(VENV)/.ok
	$(call step,package tests,$(PYTEST) -m "not browser and not full" tests)

bench: $(BENCH_VENV)/.ok ## time and memory beside other implementations, see benchmarks/run.py
	@$(BENCH_VENV)/bin/python -m benchmarks.run $(ARGS)

lint: $(VENV)/.ok ## ruff: style and format
	$(call step,lint,$(BIN)/ruff check $(CODE) && $(BIN)/ruff format --check $(CODE))

lock: $(VENV)/.ok ## renew constraints.txt for all Pythons after a change of pyproject.toml
	@$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.10 \
	    --no-emit-package setuptools --no-annotate --custom-compile-command "make lock" \
	    --quiet --output-file constraints.txt

clean: ## remove what was built; the notebooks and .venv stay
	rm -rf _build build.log .pytest_cache .ruff_cache .hypothesis *.egg-info
	find $(CODE) -name __pycache__ -type d -exec rm -rf {} +

# Compiled at once: dozens of kernels import TensorFlow, and not every machine
# lets Python store what it compiles. matplotlib's font cache for the same
# reason: built later, it makes a notebook write to stderr.
$(VENV)/.ok: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	    || { echo "Python 3.10 to 3.13 is needed: make PYTHON=python3.13 ..."; false; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(call step,install,{ $(BIN)/python -m pip install --quiet uv \
	        && $(UV) pip install --quiet --python $(BIN)/python --compile-bytecode \
	            -c constraints.txt -e ".[dev]"; } \
	    || $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]")
	@$(BIN)/python -c "import matplotlib.font_manager"
	@touch $@

# The peers need an environment of their own, with the TensorFlow of the other one.
$(BENCH_VENV)/.ok: benchmarks/requirements.txt pyproject.toml constraints.txt
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(call step,install the peers,$(BENCH_VENV)/bin/python -m pip install --quiet \
	    -c constraints.txt -r benchmarks/requirements.txt)
	@touch $@

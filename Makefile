# TORCH_INDEX names another package index for torch alone (PyTorch's own CPU index saves gigabytes where there is no GPU).
PYTHON ?= python3
TORCH_INDEX ?=
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.clinenv-installed
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)

.PHONY: setup quickstart test test-slow test-compiled test-processors lint bench site clean

setup: $(STAMP)

# torch goes first and alone, so that no other package's range picks the build
$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(PY) -m pip install -c constraints.txt -e ".[dev]"
	touch $@

quickstart: setup
	$(PY) -m examples.quickstart

test: setup
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow and not compiles" $(PYTEST_ARGS)

# Those that train, make a benchmark small, live long courses or go through everything: eight minutes more
test-slow: setup
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile -m slow $(PYTEST_ARGS)

# Every id and world as machine code beside itself: a quarter of an hour the first time
test-compiled: setup
	$(PY) -m pytest -m compiles $(PYTEST_ARGS) tests/clinenv tests/cardiac_jepa

# Bit for bit, or to the stated tolerance, on other processors too; PROCESSORS="--only default" is a part of it
test-processors: setup
	$(PY) -m tests.processors $(PROCESSORS)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# Those that need no data of your own; the trial's are run by hand (benchmarks/README.md)
BENCHMARKS ?= common.speed ecg_drug.delineation ecg_drug.fidelity leaderboard

bench: setup
	set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(PY) -m benchmarks.$$name; done

# The documentation, offline, its notebooks executed, every link and reference checked
site: setup
	$(PY) -m docs.site.build

clean:
	rm -rf build dist runs *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The oldest supported Gymnasium; the libraries at the doors that CI does not have; RLlib with the Gymnasium that it
# pins: each in an environment of its own, for their pins clash with the others'
.PHONY: test-oldest test-doors test-rllib test-offline test-llm-server test-hub package
test-oldest:
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	.venv-oldest/bin/python -m pip install -q "gymnasium==1.1.1" hypothesis -e .
	.venv-oldest/bin/python -m pytest tests/contract tests/clinenv/test_registration.py tests/clinenv/test_interface.py

# The client against a real server, which CI does not have
test-llm-server: setup
	test -x .venv-llm-server/bin/python || $(PYTHON) -m venv .venv-llm-server
	.venv-llm-server/bin/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	.venv-llm-server/bin/python -m pip install -q -c constraints.txt -e ".[ehr,llm-server]"
	.venv-llm-server/bin/python -m pytest tests/ehr_world/test_llm_server.py

# Croissant metadata by its own library, which brings stubs for pandas that the type check is not made for
test-hub: setup
	test -x .venv-hub/bin/python || $(PYTHON) -m venv .venv-hub
	.venv-hub/bin/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	.venv-hub/bin/python -m pip install -q -c constraints.txt -e ".[hub]"
	.venv-hub/bin/python -m pytest tests/offline/test_publish.py

# Wheel and sdist, the wheel installed into a new environment and tried there, away from the checkout
package:
	rm -rf dist .venv-package
	$(PYTHON) -m venv .venv-package
	.venv-package/bin/python -m pip install -q build
	.venv-package/bin/python -m build
	.venv-package/bin/python .ci/packed.py dist
	.venv-package/bin/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	.venv-package/bin/python -m pip install -q -c constraints.txt dist/*.whl
	cd dist && PYTHONPATH= ../.venv-package/bin/clinenv doctor --step

test-doors: setup
	test -x .venv-doors/bin/python || $(PYTHON) -m venv .venv-doors
	.venv-doors/bin/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	.venv-doors/bin/python -m pip install -q -c constraints.txt hypothesis -e ".[minari,puffer,rl,rsl,skrl,torchrl]"
	.venv-doors/bin/python -m pip install -q -e ".[safe]"
	.venv-doors/bin/python -m pip install -q --no-deps "pufferlib-core==3.0.23" "omnisafe==0.5.0"
	.venv-doors/bin/python -m pytest tests/doors tests/contract/test_agents_libraries.py

test-rllib: setup
	test -x .venv-rllib/bin/python || $(PYTHON) -m venv .venv-rllib
	.venv-rllib/bin/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	.venv-rllib/bin/python -m pip install -q hypothesis -e ".[rllib,minari]"
	.venv-rllib/bin/python -m pytest tests/contract/test_autoreset.py tests/contract/test_agents_libraries.py tests/doors
	.venv-rllib/bin/python -m pytest tests/agents/test_board.py -k cluster

# d3rlpy pins a Gymnasium that no environment takes, SCOPE-RL d3rlpy: both without their requirements
test-offline: setup
	test -x .venv-offline/bin/python || $(PYTHON) -m venv .venv-offline
	.venv-offline/bin/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	.venv-offline/bin/python -m pip install -q -c constraints.txt hypothesis hydra-core seaborn -e ".[minari,offline]"
	.venv-offline/bin/python -m pip install -q --no-deps "d3rlpy==2.8.1" "scope-rl==0.2.1" "pytorch_revgrad==0.2.0"
	.venv-offline/bin/python -m pytest tests/offline

# OpenEnv's own client and validation against `clinenv serve`
.PHONY: test-openenv
test-openenv: setup
	test -x .venv-openenv/bin/python || $(PYTHON) -m venv .venv-openenv
	.venv-openenv/bin/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	.venv-openenv/bin/python -m pip install -q "openenv==0.10.0" jsonschema hypothesis -e ".[serve]"
	.venv-openenv/bin/python -m pytest tests/serving

# Episodes played to their end in a real browser, by keyboard, at two widths; where playwright's own cannot be fetched,
# set CLINENV_CHROMIUM or install Debian's (apt-get install chromium)
.PHONY: test-play
test-play: setup
	$(PY) -m pip install -q -c constraints.txt -e ".[browser]"
	$(PY) -m playwright install chromium || echo "no download; a Chromium that is installed is taken"
	CLINENV_BROWSER_TESTS=1 CLINENV_SCREENSHOTS=runs/play $(PY) -m pytest tests/play

# The page without a server: made, and an episode played to its end on it in a real browser, offline
.PHONY: play-static
play-static: setup
	$(PY) -m pip install -q -c constraints.txt -e ".[browser,play-static]"
	$(PY) -m playwright install chromium || echo "no download; a Chromium that is installed is taken"
	rm -rf runs/play-static
	$(PY) -m clinenv.commands.main play ECGDrug-v0 --static runs/play-static
	CLINENV_STATIC_PAGE=runs/play-static CLINENV_SCREENSHOTS=runs/play $(PY) -m pytest tests/play/test_play_static.py

# Damaged inputs, kills, extreme actions, full disks: in brief. The full counts: docs/reliability.md
.PHONY: campaign
campaign: setup
	$(PY) -m tests.campaign all --seconds 40 --out runs/campaign.json

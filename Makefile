# make setup | demo | test | lint | docs | bench | soak | clean      DISTRO=jazzy (default) or kilted; PYTHON=python3.12 for another Python
#
# Nothing has to be installed or sourced: ROS 2 comes from PyPI into a virtual environment, one per distribution.

DISTRO ?= jazzy
PYTHON ?= python3
VENV ?= $(if $(filter jazzy,$(DISTRO)),.venv,.venv-$(DISTRO))
BIN := $(VENV)/bin
TESTS ?= tests
PYTEST_ARGS ?=
JOBS ?= 2

# The environment stands alone: what a sourced ROS installation, or another environment of this kind, left in this
# shell would mix its libraries with ours. The last is the mark by which the wheels' start-up hook knows it has run.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH ROS_DISTRO LD_LIBRARY_PATH
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: setup demo test lint docs bench soak clean

setup:
	@$(PYTHON) scripts/setup_ros_venv.py --distro $(DISTRO) --venv $(VENV)

demo: setup
	@$(BIN)/hybriddepth demo --out out/demo

# Discovery stays on this machine, and each run has a domain of its own: two runs side by side do not hear each other.
# Two processes share the test files; each computes with one thread, so that two cores serve both.
test: setup
	@export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST; \
	export ROS_DOMAIN_ID=$$($(PYTHON) -c 'import random; print(random.randint(1, 101))'); \
	echo "pytest, ROS 2 $(DISTRO), ROS_DOMAIN_ID=$$ROS_DOMAIN_ID"; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS) $(PYTEST_ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: setup
	@$(BIN)/python scripts/generate_docs.py

# Ten minutes, in which nothing else should run; BENCH_ARGS=--quick: four.
bench: setup
	@mkdir -p out
	@$(BIN)/hybriddepth bench --json out/bench.json --docs docs $(BENCH_ARGS)

# An hour of slices: fails if memory grows or a slice is lost uncounted.
SOAK_SECONDS ?= 3600
soak: setup
	@$(BIN)/hybriddepth bench --soak $(SOAK_SECONDS) --docs docs

# Everything that make made, environments included.
clean:
	rm -rf .venv .venv-kilted out build install log ros2_ws/build ros2_ws/install ros2_ws/log
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

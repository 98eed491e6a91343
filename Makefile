# SPDX-License-Identifier: Apache-2.0
# All that a person needs to know; CMake and CTest do the work (CMakePresets.json).

PRESET ?= dev
jobs := $(shell nproc)
# CMake starts a make of its own, which is not a part of this one
cmake := env -u MAKEFLAGS -u MAKELEVEL cmake
ctest := env -u MAKEFLAGS -u MAKELEVEL ctest
PYTHON ?= python3

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help deps build demo test lint bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

deps: ## install the Debian packages that lockstep needs (the others do so when something is missing)
	@scripts/deps

build: ## build the program (build/lockstep), the library and the examples
	@scripts/deps --quiet
	@$(cmake) --preset release
	@$(cmake) --build --preset release --parallel $(jobs) --target lockstep lockstep_cli all_examples

demo: build ## train a network on MNIST with two workers
	@if scripts/get-data mnist; then config=examples/mnist.yaml; else config=examples/digits.yaml; \
	    echo "demo: training on the handwritten digits in data/digits instead"; fi; \
	set -x; build/lockstep train $$config -n 2 --output runs/demo --overwrite

test: ## build and run all tests; PRESET=asan or PRESET=tsan: with sanitizers
	@scripts/deps --quiet
	@$(cmake) --preset $(PRESET)
	@$(cmake) --build --preset $(PRESET) --parallel $(jobs)
	@$(ctest) --preset $(PRESET) --label-exclude long

lint: ## run the tests that read the code: layers, format, names, banned calls
	@scripts/deps --quiet
	@$(cmake) --preset dev
	@$(cmake) --build --preset dev --parallel $(jobs) --target lockstep
	@$(ctest) --preset dev --label-regex lint

bench: build ## build and run the benchmarks, beside MPIs that are there; PYTHON=a Python with PyTorch: beside it, too
	@$(cmake) --build --preset release --parallel $(jobs) --target all_bench
	@set -e; for program in build/bench/bench_*; do echo "== $$program"; "$$program"; done
	@echo "== bench/vs_peers"; bench/vs_peers --python $(PYTHON)
	@scripts/get-data mnist
	@if $(PYTHON) -c 'import torch' 2>/dev/null; then bench/vs_pytorch --python $(PYTHON); else \
	    echo "bench: $(PYTHON) has no PyTorch, so there is no comparison with it"; fi

clean: ## remove what the others have built
	@rm -rf build build-dev build-asan build-tsan

# All targets of the project; CI runs the same ones.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Like scripts/setup: cargo may have just been installed.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO := cargo
# Started directly, not by cargo, so that a signal reaches only this process.
DEMO = $${CARGO_TARGET_DIR:-target}/debug/demo
BENCH = $${CARGO_TARGET_DIR:-target}/native/benches

.PHONY: help setup checkers build wasm image files demo demo-built run test unit e2e oidc keycloak bench bench-quick bench-built fmt fmt-check lint arrows docs fuzz clean bench-growth

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Envoy, Redis, the Wasm target
	@scripts/setup

build: setup ## build the native binaries
	$(CARGO) build --locked

wasm: setup ## build the filter into dist/portcullis.wasm
	@scripts/wasm

image: wasm ## pack the filter into an OCI image for Istio, and write its digest to istio/build (IMAGE=host/path:tag)
	@scripts/image $(IMAGE)

checkers: setup
	@scripts/checkers

files: image checkers ## load or validate every YAML, JSON and Dockerfile in git
	@$(CARGO) build --quiet --locked -p cli
	@scripts/check-files

demo: demo-built ## run the whole mesh on this machine and print each request, its answer and what it shows
	@$(DEMO)

run: demo-built ## run the same mesh until Ctrl-C, with commands to try
	@$(DEMO) --stay

demo-built: setup wasm
	@$(CARGO) build --quiet --locked -p cli -p tests

# Cheap checks that fail often come first.
test: setup checkers fmt-check arrows ## run all checks: format, lints, unit tests, end-to-end tests with a real Envoy and Redis
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory files
	@$(MAKE) --no-print-directory e2e

unit: ## run unit tests and case tables, natively
	$(CARGO) test --locked --workspace --exclude noop --exclude tests

e2e: image checkers ## run end-to-end tests, each with a real Envoy, service and Redis
	$(CARGO) build --locked -p cli
	$(CARGO) test --locked -p tests

oidc: wasm ## log in and out at a real OpenID provider (needs Node 20; installs oidc-provider from npm)
	@scripts/oidc

keycloak: wasm ## the same with a real Keycloak: logins, rotations, logouts, its token types (needs Java 17 and Maven)
	@scripts/keycloak

bench: bench-built ## measure the cost of a request, beside Envoy's own filters: benches/README.md
	@$(BENCH)

bench-quick: bench-built ## the same in under 3 minutes, with fewer and shorter rounds
	@$(BENCH) --quick

bench-growth: bench-built ## measure how the cost grows with tokens, workers, rules, issuers, keys and revocations
	@$(BENCH) growth

bench-built: setup wasm
	@scripts/wasm --noop
	@$(CARGO) build --quiet --locked --profile native -p cli -p benches

fmt: ## format the code
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

lint: arrows ## run clippy on everything, on the filter for its own target
	$(CARGO) clippy --locked --workspace --exclude filter --exclude noop --all-targets -- -D warnings
	@scripts/wasm --lint

fuzz: ## search with random signatures and keys for engines that disagree (needs nightly and cargo-fuzz)
	cd fuzz && cargo +nightly fuzz run engines --fuzz-dir . -- -max_total_time=60

arrows: ## check the imports between crates
	@scripts/arrows

docs: ## generate the files in docs/ that come from the code
	@mkdir -p docs
	$(CARGO) run --quiet --locked -p cli -- docs --dir docs

clean: ## remove everything that was built or installed
	rm -rf target dist .stack .venv

# Every verb of the project; CI runs the same ones.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# As scripts/setup does: cargo may have been installed a moment ago.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO := cargo
# Started by itself, not by cargo: a signal reaches it and nobody else.
DEMO = $${CARGO_TARGET_DIR:-target}/debug/demo
BENCH = $${CARGO_TARGET_DIR:-target}/native/benches

.PHONY: help setup checkers build wasm native image files demo demo-built run test unit e2e oidc keycloak bench bench-quick bench-built fmt fmt-check lint arrows docs fuzz clean bench-growth

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Envoy, Redis, the Wasm target
	@scripts/setup

build: setup ## build the native binaries
	$(CARGO) build --locked

wasm: setup ## build the filter into dist/portcullis.wasm
	@scripts/wasm

native: setup ## build the filter as a dynamic module into dist/libportcullis.so
	@scripts/native

image: wasm ## pack the filter into an OCI image for Istio, and its digest into istio/build (IMAGE=host/path:tag)
	@scripts/image $(IMAGE)

checkers: setup
	@scripts/checkers

files: image checkers ## load or validate every YAML, JSON and Dockerfile that ships
	@$(CARGO) build --quiet --locked -p cli
	@scripts/check-files

demo: demo-built ## walk through the whole mesh on this machine: each request, answer and what it shows
	@$(DEMO)

run: demo-built ## the same mesh, left up until Ctrl-C, with lines to paste
	@$(DEMO) --stay

demo-built: setup wasm
	@$(CARGO) build --quiet --locked -p cli -p tests

# What is cheap and fails often comes first.
test: setup checkers fmt-check arrows ## everything: format, lints, unit tests, and end to end against a real Envoy and Redis
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory files
	@$(MAKE) --no-print-directory e2e

unit: ## unit tests and case tables, natively
	$(CARGO) test --locked --workspace --exclude noop --exclude tests

e2e: image checkers ## end to end: a real Envoy, service and Redis for each test
	$(CARGO) build --locked -p cli
	$(CARGO) test --locked -p tests

oidc: wasm ## log in and out at a real OpenID provider (needs Node 20; installs oidc-provider from npm)
	@scripts/oidc

keycloak: wasm ## the same with a real Keycloak: logins, rotations, logouts, its kinds of tokens (needs Java 17 and Maven)
	@scripts/keycloak

bench: bench-built ## what each request costs, beside Envoy's own filters: benches/README.md
	@$(BENCH)

bench-quick: bench-built ## the same in under 3 minutes, with fewer and shorter rounds
	@$(BENCH) --quick

bench-growth: bench-built ## how that grows with tokens, workers, rules, issuers, keys and revocations
	@$(BENCH) growth

bench-built: setup wasm
	@scripts/wasm --noop
	@$(CARGO) build --quiet --locked --profile native -p cli -p benches

fmt: ## format the code
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

lint: arrows ## clippy on everything, the filter for its own target
	$(CARGO) clippy --locked --workspace --exclude filter --exclude noop --all-targets -- -D warnings
	@scripts/wasm --lint

fuzz: ## let random signatures and keys look for engines that disagree (needs nightly and cargo-fuzz)
	cd fuzz && cargo +nightly fuzz run engines --fuzz-dir . -- -max_total_time=60

arrows: ## check which crate imports which
	@scripts/arrows

docs: ## generate the files in docs/ that come from the code
	@mkdir -p docs
	$(CARGO) run --quiet --locked -p cli -- docs --dir docs

clean: ## remove what was built and set up
	rm -rf target dist .stack .venv

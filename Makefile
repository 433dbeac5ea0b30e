# All targets of the project; CI runs the same ones.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Like scripts/setup: cargo may have just been installed.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO := cargo
# Every native build names the same packages: cargo chooses features by the named packages, and would otherwise build
# dependencies again.
NATIVE := --locked --workspace --exclude noop
# Started directly, not by cargo, so that a signal reaches only this process.
DEMO = $${CARGO_TARGET_DIR:-target}/debug/demo
BENCH = $${CARGO_TARGET_DIR:-target}/native/benches

.PHONY: help first-use install release-build release-files site coverage setup compiler chromium checkers build wasm image image-wasm image-native files demo demo-built run test unit e2e regions oidc keycloak bench bench-quick bench-built fmt fmt-check lint rustdoc arrows deny msrv advisories docs fuzz clean bench-growth bench-features check native build-for-tests wasm-for-tests browser-for-tests unit-without-redis soak sanitize differential nightly kill-loop dynamodb

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Envoy, Redis, the Wasm target
	@scripts/setup

build: setup ## build the native binaries
	$(CARGO) build --locked

# The dynamic module that `make test` builds.
QUICK_MODULES := $(CURDIR)/dist/quick

wasm: setup ## build the filter into dist/portcullis.wasm
	@scripts/wasm

native: setup ## build the filter as a dynamic module into dist/libportcullis.so
	@scripts/native $(if $(filter $(QUICK_MODULES),$(PORTCULLIS_MODULES)),--quick)

# The host of the filter inside Envoy: wasm or native.
HOST ?= wasm
image: image-$(HOST) ## pack the filter into an OCI image, and write its digest for kustomize (IMAGE=host/path:tag; HOST=native)

image-wasm image-native: image-%: %
	@scripts/image $* $(IMAGE)

checkers: setup
	@scripts/checkers

files: image-wasm image-native checkers ## load or validate every YAML, JSON, chart and Dockerfile in git, and check links
	@$(CARGO) build --quiet $(NATIVE) --bin portcullis --bin token --test e2e
	@scripts/check-files

demo: demo-built ## run the whole mesh on this machine and print each request, its answer and what it shows
	@$(DEMO)

run: demo-built ## run a small mesh without Redis until Ctrl-C, with commands to try (HOST=native)
	@$${CARGO_TARGET_DIR:-target}/debug/portcullis dev --host $(HOST)

demo-built: setup $(if $(filter native,$(HOST)),native,wasm)
	@$(CARGO) build --quiet $(NATIVE) --bin portcullis --bin demo

# Makes targets, and prints how long they took.
stage = @SECONDS=0; $(MAKE) --no-print-directory $(1) && echo "make $@: $$SECONDS s for $(2)"

check: ## check format, lints, and unit tests without those on a real Redis: run this while working
	$(call stage,fmt-check,the format)
	$(call stage,lint,lints)
	$(call stage,unit-without-redis,unit tests)

unit-without-redis:
	@scripts/unit --without-redis

# Clippy compiles the native code of this project, so that dependencies are compiled once: `cargo clippy` would check all
# of them once more. CLIPPY_ARGS is what `cargo clippy -- -D warnings` sets. The dynamic module is built for tests from
# the same code. Nothing that ships is built in this way.
test: export RUSTC_WORKSPACE_WRAPPER := clippy-driver
test: export CLIPPY_ARGS := -Dwarnings__CLIPPY_HACKERY__
test: export PORTCULLIS_MODULES := $(QUICK_MODULES)
# Cheap checks that fail often come first. Wasm and native code are built into separate folders, so both are built at the
# same time, and while the rest is installed.
test: compiler fmt-check arrows ## run all checks: format, lints, unit tests, end-to-end tests with a real Envoy and Redis
	$(call stage,--jobs 3 --output-sync=target build-for-tests wasm-for-tests browser-for-tests deny,lints and all that tests need)
	$(call stage,--jobs 2 --output-sync=target unit files,unit tests and files)
	$(call stage,e2e HOST=both,end-to-end tests)

compiler:
	@scripts/setup --compiler

# The end-to-end tests first: their one crate takes long, and the others fill the second core meanwhile.
build-for-tests:
	$(CARGO) build $(NATIVE) --bin portcullis --bin token --test e2e
	$(CARGO) test $(NATIVE) --all-targets --no-run
	@scripts/native --quick

# After the checkers, which also use apt. Without a browser its tests are left out, with a message.
browser-for-tests: checkers
	@scripts/chromium --install || true

# The lint first: the last step of the build needs a native program, and waits until the native build is done.
wasm-for-tests: setup
	@scripts/wasm --lint
	@scripts/wasm

unit: ## run unit tests and case tables, natively
	@scripts/unit

ifdef TEST
e2e: setup ## run end-to-end tests, each with a real Envoy, service and Redis (TEST=text: only those with it; HOST=native or both)
	@HOST=$(HOST) scripts/e2e $(TEST)
else ifeq ($(HOST),native)
e2e: image-native
	@HOST=native scripts/e2e
else
e2e: image-wasm image-native checkers
	@HOST=$(HOST) scripts/e2e
endif

oidc: wasm ## log in and out at a real OpenID provider (needs Node 20; installs oidc-provider from npm)
	@scripts/oidc

keycloak: wasm ## the same with a real Keycloak: logins, rotations, logouts, its token types (needs Java 17 and Maven)
	@scripts/keycloak

hijack: ## print the signs of hijacked sessions on a simulated day: docs/hijack.md
	$(CARGO) test $(NATIVE) --lib population -- --nocapture

dynamodb: wasm ## the store in DynamoDB against a test server, with faults and two regions; compiles the AWS SDK (needs Node 20)
	@scripts/dynamodb

chromium: wasm ## use the operator's page, and see the filter's answers, in headless Chromium (installs it by apt; SCREENSHOTS=1)
	@scripts/chromium

sanitize: setup ## the module's own tests with AddressSanitizer, and under Miri if it is installed
	@scripts/sanitize

# In memory with an optimised build, then in a real Envoy.
DIFFERENTIAL_IN_MEMORY := 1000000
DIFFERENTIAL_IN_ENVOY := 100000
differential: wasm native build ## random requests to both hosts, whose answers must not differ (DIFFERENTIAL_SEED=…)
	@export DIFFERENTIAL_SEED=$${DIFFERENTIAL_SEED:-$$(date +%s)}; echo "DIFFERENTIAL_SEED=$$DIFFERENTIAL_SEED"; \
	DIFFERENTIAL_REQUESTS=$(DIFFERENTIAL_IN_MEMORY) $(CARGO) test --quiet --locked --profile native -p native --test differential -- --nocapture && \
	DIFFERENTIAL_REQUESTS=$(DIFFERENTIAL_IN_ENVOY) PORTCULLIS_WASM=$$PWD/dist/portcullis.wasm scripts/e2e differential::

# What takes too long for each change. One step that fails does not keep the others from running.
nightly: setup ## all end-to-end tests on both hosts, DynamoDB, differential, soak, regions, fuzzers (FUZZ_SECONDS=60 each), sanitizers
	@failed=; for step in test 'e2e HOST=wasm' 'e2e HOST=native' dynamodb sanitize differential soak regions fuzz; do \
		echo "nightly: make $$step"; $(MAKE) --no-print-directory $$step || failed="$$failed '$$step'"; done; \
	[ -z "$$failed" ] || { echo "nightly: failed:$$failed"; exit 1; }

KILL_ROUNDS := 200
kill-loop: setup ## kill a process that writes to a file store, KILL_ROUNDS=200 times; no acknowledged write may be lost
	KILL_ROUNDS=$(KILL_ROUNDS) $(CARGO) test $(NATIVE) --test kill -- --nocapture

regions: setup ## a Redis that fails over in a joined region; three regions, a cut of REGIONS_CUT=600 seconds with REGIONS_COUNT=10000 revocations in each; prints the lag
	@PORTCULLIS_WASM=none scripts/e2e regions:: --ignored

soak: native build ## many requests to the dynamic module with resets, reloads and a failing store (SOAK_REQUESTS=1000000)
	@SOAK_REQUESTS=$${SOAK_REQUESTS:-1000000} PORTCULLIS_WASM=none scripts/e2e native::under_load

bench: bench-built ## measure the cost of a request, beside Envoy's own filters: benches/README.md
	@$(BENCH)

bench-quick: bench-built ## the same in under 3 minutes, with fewer and shorter rounds
	@$(BENCH) --quick

bench-features: bench-built ## measure what DPoP, sightings, bindings and browser answers add to a request
	@$(BENCH) --only features

bench-growth: bench-built ## measure how the cost grows with tokens, workers, rules, issuers, keys and revocations
	@$(BENCH) growth

bench-built: setup wasm native
	@scripts/wasm --noop
	@$(CARGO) build --quiet --locked --profile native -p portcullis-cli -p benches

fmt: ## format the code
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

lint: arrows deny ## check modules and dependencies, run clippy on everything, on the filter for its own target
	$(CARGO) clippy $(NATIVE) --exclude filter --all-targets -- -D warnings
	$(CARGO) clippy $(NATIVE) --exclude filter --test e2e -- -D warnings
	@scripts/wasm --lint
	@$(MAKE) --no-print-directory rustdoc

rustdoc: ## build the documentation of every item, also private ones; a broken link is an error
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --locked --workspace --exclude noop --no-deps --document-private-items

FUZZ_SECONDS := 60
fuzz: ## search with cargo-fuzz for inputs that break a property, FUZZ_SECONDS=60 per target (needs nightly and cargo-fuzz)
	cd fuzz/libfuzzer && for target in path json jws headers check engines; do \
		cargo +nightly fuzz run $$target --fuzz-dir . -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

release-build: wasm native ## build what a release has: both forms of the filter, and the optimised command
	@$(CARGO) build --quiet --locked --profile native -p portcullis-cli

release-files: ## pack what was built into dist/release: archives, packages, images, chart, checksums; compiles nothing
	@scripts/release

first-use: release-files ## time a first use from the release's files: install, portcullis dev, first 200, first 403
	@scripts/first-use

install: ## build and install below PREFIX=/usr/local; scripts/install --from DIRECTORY takes a release's files
	@scripts/install --prefix $(or $(PREFIX),/usr/local)

site: checkers ## build the documentation as a searchable site into dist/site, and check its links
	@scripts/site

coverage: setup ## lines of the driver that its tests without Envoy reach; fails below 90 %
	@scripts/coverage

arrows: ## check which crate uses which, which module inside a crate, the paths in CONTRIBUTING.md, and scripts/install
	@python3 -m unittest -q scripts/test_arrows.py scripts/test_contributing.py scripts/test_install.py
	@scripts/arrows

msrv: setup ## check that everything compiles with the oldest Rust that Cargo.toml names
	@scripts/msrv

deny: setup ## check licences, sources, bans and the oldest Rust of dependencies
	@scripts/deny
	@scripts/msrv --dependencies

advisories: setup ## check dependencies against the RustSec database, which is fetched
	@scripts/deny --advisories

docs: ## generate the files in docs/ that come from the code
	@mkdir -p docs
	$(CARGO) build --quiet $(NATIVE) --bin portcullis
	$${CARGO_TARGET_DIR:-target}/debug/portcullis docs --dir docs

clean: ## remove everything that was built or installed
	rm -rf target dist .stack .venv

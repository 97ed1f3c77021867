# `make demo` shows the main job on a real model; `make test` does all set-up and checks everything.

CARGO ?= cargo
FUZZ_SECONDS ?= 600
# Where `make install` installs, under DESTDIR.
PREFIX ?= /usr/local
# Tests of chunk-cipher that reach its unsafe code, as filters of the test harness.
VALGRIND_TESTS ?= aead store engine buffer pool

# Without AWS-LC these three are Rust alone.
PORTABLE := -p chunk-cipher -p gocryptfs-core -p sam-format --no-default-features
FUZZ := attest-client/fuzz/Cargo.toml chunk-cipher/fuzz/Cargo.toml ffi/fuzz/Cargo.toml \
	gocryptfs-core/fuzz/Cargo.toml modelseal/fuzz/Cargo.toml sam-format/fuzz/Cargo.toml
# All that is linted and tested, with the broker for development. The same in .ci/memcheck, so that nothing is built twice.
ALL := --workspace --features modelseal/dev-kbs

TEST := setup fmt-check lint unit python vllm portable docs deny msrv aarch64 package fuzz-check memcheck ffi

.PHONY: help
help:
	@echo 'make demo    seal, inspect, verify and open a real model, its key from a broker'
	@echo 'make test    set up and check everything ($(TEST))'
	@echo 'make build   the modelseal command, optimised, in target/release'
	@echo 'make wheel   the Python package, optimised, in target/wheels'
	@echo 'make install PREFIX=$(PREFIX)   the command, and the C library with its headers; make install-ffi the library alone'
	@echo 'make bench   compare speeds on this machine; make bench-python those of the Python package'
	@echo 'make fuzz    run every fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS)'
	@echo 'make setup doc fmt clean'

.PHONY: build demo bench wheel bench-python lock-python doc fmt clean
build:
	$(CARGO) build --release --locked -p modelseal

.PHONY: install install-ffi
install: build install-ffi
	install -D "$${CARGO_TARGET_DIR:-target}/release/modelseal" "$(DESTDIR)$(PREFIX)/bin/modelseal"

install-ffi:
	$(CARGO) build --release --locked -p modelseal-ffi
	DESTDIR="$(DESTDIR)" scripts/install-ffi.sh "$${CARGO_TARGET_DIR:-target}/release" "$(PREFIX)"

demo:
	scripts/demo.sh

bench: build
	$(CARGO) run --release --locked -p benches -- compare

# A wheel for Linux with glibc 2.17 and later, in target/wheels.
wheel:
	.ci/wheel

bench-python:
	python/benches/compare.sh

# After a change of python/tests/requirements.in or overrides.txt.
lock-python:
	.ci/lock-python

doc:
	$(CARGO) doc --workspace --no-deps --locked --open

fmt:
	$(CARGO) fmt --all

clean:
	$(CARGO) clean
	rm -rf python/.venv $(FUZZ:Cargo.toml=target) $(FUZZ:Cargo.toml=corpus) $(FUZZ:Cargo.toml=artifacts)

.PHONY: test $(TEST)
test:
	@set -e; for step in $(TEST); do \
		printf '\n== %s\n' "$$step"; begin=$$(date +%s); \
		$(MAKE) --no-print-directory "$$step"; \
		printf '== %s: %d s\n' "$$step" "$$(($$(date +%s) - begin))"; \
	done

setup:
	.ci/setup

fmt-check:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy $(ALL) --all-targets --locked -- -D warnings

unit:
	$(CARGO) test $(ALL) --locked

python:
	.ci/python

# Servers that really serve.
vllm:
	.ci/python --tests -m vllm -o faulthandler_timeout=900 tests/test_vllm.py

portable:
	$(CARGO) clippy $(PORTABLE) --all-targets --locked -- -D warnings
	$(CARGO) test $(PORTABLE) --locked

docs:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked

deny:
	$(CARGO) deny --version || $(CARGO) install cargo-deny --locked --version 0.20.2
	$(CARGO) deny --locked check bans licenses sources

msrv:
	.ci/msrv

aarch64:
	.ci/aarch64

package:
	.ci/package

fuzz-check:
	@set -ex; for manifest in $(FUZZ); do \
		CARGO_TARGET_DIR="$${CARGO_TARGET_DIR:-$(CURDIR)/target}" \
		$(CARGO) check --manifest-path "$$manifest"; \
	done

memcheck:
	.ci/memcheck $(VALGRIND_TESTS)

ffi:
	.ci/ffi

# The corpus grows in fuzz/corpus; fuzz/seeds holds what is committed.
.PHONY: fuzz
fuzz:
	.ci/fuzz $(FUZZ_SECONDS) $(FUZZ)

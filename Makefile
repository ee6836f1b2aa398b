# What a person runs. `make help` lists it.
CARGO ?= cargo
FUZZ_SECONDS ?= 20
# The test programs of `make check`: those that took less than 6 s alone when this list was made.
FAST_TESTS = cli client_hello config doctor half_close module_borders outcome_table parser_oracles policy_bypass rig_self server_name static_forward
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
FUZZ_TARGETS = $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))

.DEFAULT_GOAL := help
.PHONY: help build demo test check one lint msrv deny tailnet test-more fuzz-check fuzz bench bench-check growth soak

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## the release binary, target/release/tailrace
	$(CARGO) build --release --locked

demo: ## the gateway carries traffic on this machine, nothing else needed
	$(CARGO) run --release --locked -- demo

test: ## every test, then again as an unprivileged user; names what it had to skip; installs nothing
	tests/suite

check: ## formatting, clippy and the fast tests, before each commit
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) build --quiet --locked --example fake-tailscaled
	$(CARGO) test --workspace --quiet --locked --no-fail-fast --lib $(FAST_TESTS:%=--test %)

one: ## the tests with T in their names: make one T=p17_
	@CARGO="$(CARGO)" tests/one "$(T)"

lint: ## formatting, clippy and documentation, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked

msrv: ## the program builds with the oldest Rust that Cargo.toml promises; needs that toolchain
	CARGO_TARGET_DIR=target/msrv $(CARGO) +$(MSRV) check --locked --lib --bins

deny: ## licences, duplicates and sources of the dependencies; needs cargo-deny. Advisories: docs/releasing.md
	$(CARGO) deny --locked check licenses bans sources

tailnet: ## builds headscale and every pinned tailscaled into ~/.cache/tailrace, then runs only the real-tailnet proof, on each
	tests/tailnet/install
	$(CARGO) test --locked --test tailnet

test-more: ## builds gh and temporal into ~/.cache/tailrace (minutes), then runs them through the real tailnet
	tests/tailnet/install
	tests/clients/install --more
	TAILRACE_MORE=1 $(CARGO) test --locked --test tailnet -- program_gh program_temporal program_all

fuzz-check: ## every fuzz target compiles; runs none
	CARGO_TARGET_DIR=target/fuzz $(CARGO) check --quiet --locked --manifest-path fuzz/Cargo.toml

fuzz: ## every fuzz target for FUZZ_SECONDS (20); needs a nightly toolchain and cargo-fuzz
	@$(CARGO) +nightly fuzz --version || { echo 'make fuzz needs: rustup toolchain install nightly && cargo install cargo-fuzz'; exit 1; }
	set -e; for target in $(FUZZ_TARGETS); do \
		$(CARGO) +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) -timeout=5; done

bench: ## criterion benches, then the gateway beside bare relays and peers: docs/performance.md
	$(CARGO) bench --locked --bench parsers --bench policy --bench relay
	$(CARGO) bench --locked --bench wrapped
	$(CARGO) bench --locked --bench versus -- callers
	$(CARGO) bench --locked --bench first_byte
	$(CARGO) bench --locked --bench versus

bench-check: ## fails when a CPU or memory ratio to the bare relays is 15 % worse than committed; WRITE=1 commits
	WRITE=$(WRITE) $(CARGO) bench --locked --bench versus -- check

growth: ## cost with many connections, suffixes and hosts: docs/scale.md
	$(CARGO) bench --locked --bench versus -- growth

soak: ## random ends, resets, reloads and tailscaled restarts for SECONDS (3600)
	SOAK_SECONDS=$(or $(SECONDS),3600) $(CARGO) test --locked --release --test soak -- --nocapture

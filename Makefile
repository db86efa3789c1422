# What can be done with this repository, and what it needs on a fresh Debian machine.
# Two commands are enough: `make run` and `make test`. Both install what is missing. The cluster needs root and Go.

ARGS ?=
CARGO ?= cargo
PYTHON ?= python3
NODE ?= node
NPM ?= npm
GO ?= go
SUDO ?= sudo
GO_VERSION := 1.26
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
# The day of the nightly Rust that libFuzzer's instrumentation is built with.
NIGHTLY := nightly-2026-05-20
HELM_VERSION := v4.3.1
HELM_DOCS_VERSION := v1.14.2
KUBECONFORM_VERSION := v0.8.0
# Which build of the binaries the cluster's images get: debug or release.
PROFILE ?= debug
# Instructions and allocations per request that later builds are compared with.
BASELINE := e2e/bench-baseline.json

# Where the models of the CPU engine are kept, outside of the build; MODELS=none does without them.
MODELS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/speechstack/models

export CARGO_TERM_COLOR ?= auto
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
NODE_MODULES := e2e/sdk/node/node_modules
PAGE_MODULES := e2e/page/node_modules
TOOLS := target/tools
COMPONENTS := coredns etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet
# Built as that Kubernetes release says it is; otherwise its parts refuse each other's version.
KUBERNETES_VERSION = $(shell sed -n 's/^	k8s.io\/kubernetes //p' e2e/cluster/go.mod)

# The version of rust-toolchain.toml may be installed under another name, such as stable, where rustup has no network.
CHANNEL := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
ifeq ($(RUSTUP_TOOLCHAIN)$(shell rustup toolchain list 2>/dev/null | grep '^$(CHANNEL)-'),)
ifneq ($(shell RUSTUP_TOOLCHAIN=stable rustc --version 2>/dev/null | grep '^rustc $(CHANNEL) '),)
export RUSTUP_TOOLCHAIN := stable
endif
endif

# Compilers for the codecs that are built from source, and the speech software of the reference engine.
PACKAGES_BUILD := ca-certificates cmake g++ make pkg-config \
	flite1-dev libpocketsphinx-dev libsphinxbase-dev pocketsphinx-en-us \
	$(shell $(PYTHON) -m pip --version >/dev/null 2>&1 || echo python3-pip)
PACKAGES_TEST = $(shell command -v $(NODE) >/dev/null || echo nodejs) $(shell command -v $(NPM) >/dev/null || echo npm) \
	$(shell $(PYTHON) -c 'import ensurepip' 2>/dev/null || echo python3-venv) podman dbus-daemon chromium espeak-ng ffmpeg \
	$(shell command -v runc >/dev/null || echo runc) valgrind redis-server curl
PACKAGES_COUNT = strace valgrind
PACKAGES_BENCH = $(PACKAGES_COUNT) $(shell command -v nginx >/dev/null || test -x /usr/sbin/nginx || echo nginx-light)
# A cluster's nodes and network, and what builds images without a registry.
# (containerd and runc may be there already under other packages' names.)
PACKAGES_CLUSTER = binutils buildah conntrack containernetworking-plugins ethtool iproute2 iptables kmod mmdebstrap mount \
	socat util-linux $(foreach program,containerd runc,$(shell command -v $(program) >/dev/null || echo $(program)))

# A cross compiler for arm64.
PACKAGES_ARM64 = binutils-aarch64-linux-gnu g++-aarch64-linux-gnu gcc-aarch64-linux-gnu libc6-dev-arm64-cross

.PHONY: images-arm64 packages-arm64 help run models voices clips runtime ort-test build test check lint soak conformance fuzz bench bench-instructions bench-gate bench-baseline gpu-test advisories cluster cluster-down cluster-test thrift cluster-bench images cargo packages \
	packages-test packages-bench packages-count packages-cluster nightly sdks clients cluster-binaries cluster-ready go fmt clippy doc deny rules tools \
	chart chart-docs chart-landed crds

help: ## Say what there is to run.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

# Without its models the engine still starts, with voices and words of a lesser kind.
# With KEYS the gateway asks for an API key of that file, which is made when missing.
KEYS =
run: packages cargo ## Build and start a whole speech stack on this machine; ARGS='...' are passed on. MODELS=none for no models, KEYS=FILE asks for API keys.
	@$(MAKE) --no-print-directory models || true
	$(CARGO) build --profile demo --package speechstack-proxy --package speechstack-engine
	@[ -z '$(KEYS)' ] || [ -e '$(KEYS)' ] || { printf 'API key: '; target/demo/speechstack-proxy keys add demo --file '$(KEYS)'; }
	@SPEECHSTACK_ENGINE_MODELS='$(MODELS)' exec target/demo/speechstack-proxy standalone --config demo/stack.yaml \
		$(if $(KEYS),--set gateway.auth.mode=keys --set 'gateway.auth.keys_file=$(KEYS)') $(ARGS)

models: packages ## Fetch the neural models of the CPU engine, about 230 MB, into MODELS (~/.cache/speechstack/models).
	@[ '$(MODELS)' = none ] || PYTHON='$(PYTHON)' engine/fetch.sh models '$(MODELS)'

voices: models ## Fetch more voices of the CPU engine, in five languages, about 90 MB, into MODELS; make run uses them then.
	@[ '$(MODELS)' = none ] || PYTHON='$(PYTHON)' engine/fetch.sh voices '$(MODELS)'
	@command -v espeak-ng >/dev/null || echo 'voices: without the program espeak-ng they speak English only'

clips: packages ## Fetch recordings of people for the tests of the CPU engine, about 4 MB.
	@[ '$(MODELS)' = none ] || PYTHON='$(PYTHON)' engine/fetch.sh clips '$(dir $(MODELS))clips'

runtime: packages ## Fetch ONNX Runtime for an engine that is built with the feature ort, 28 MB.
	@PYTHON='$(PYTHON)' engine/fetch.sh runtime '$(dir $(MODELS))runtime'

ort-test: packages cargo runtime ## Run the tests of Parakeet's networks in ONNX Runtime.
	ORT_DYLIB_PATH='$(dir $(MODELS))runtime/libonnxruntime.so' $(CARGO) test --package speechstack-engine --features ort --lib parakeet

build: packages cargo ## Build the release binaries.
	$(CARGO) build --release --workspace --bins

test: packages-test cargo sdks voices clips ## Run every test: unit, in process, whole stack, SDKs, fault matrix, cluster.
	$(CARGO) build --workspace --all-targets
	SPEECHSTACK_CLUSTER=later e2e/failures.sh $(CARGO) test --workspace --no-fail-fast
	target/debug/bench --gate $(BASELINE)
	$(MAKE) cluster-test

check: fmt rules clippy ## The quick part of lint and test: form, warnings, unit and in-process tests; no whole stacks.
	$(CARGO) test --workspace --lib --bins --test drift --test layout --no-fail-fast

lint: fmt clippy doc deny rules chart ## Check form, warnings, documentation, licences and the house rules.

crds: packages cargo ## Write the YAML of the CRDs from their types.
	SPEECHSTACK_WRITE_CRDS=1 $(CARGO) test --workspace --test drift

chart-landed: ## Store the chart of the commit REF (HEAD) as the one that upgrades are tested from.
	@rm -rf target/landed && mkdir -p target/landed
	git archive $(or $(REF),HEAD) charts/speechstack crds/speechstacks.yaml | tar -x -C target/landed
	cd target/landed/charts && tar -chf - --sort=name --owner=0 --group=0 --mtime=@0 speechstack | gzip -9n >$(CURDIR)/charts/tests/speechstack-landed.tgz

chart-docs: $(TOOLS)/bin/helm-docs ## Write the chart's table of values.
	$< --chart-search-root charts --log-level error --sort-values-order file

soak: packages-test cargo ## Overload, cancels, errors, slow clients and starvation for MINUTES (60); fails on any restart, leak or loss.
	SPEECHSTACK_SOAK_MINUTES=$(or $(MINUTES),60) $(CARGO) test --workspace --test soak -- --nocapture

clients: target/clients/pyvenv.cfg e2e/sdk/agents/node_modules/.package-lock.json ## Run the NVIDIA and OpenAI services of LiveKit and pipecat, LangChain, OpenAI's agents SDK and Socket.IO's client against a stack that runs, by default that of `make run`; SERVER=HOST:PORT.
	NO_PROXY=127.0.0.1 $(NODE) e2e/sdk/agents/contract.mjs $(or $(SERVER),127.0.0.1:8080)
	NO_PROXY=127.0.0.1 target/clients/bin/python e2e/sdk/agents/contract.py --server $(or $(SERVER),127.0.0.1:8080)

conformance: target/conformance/pyvenv.cfg ## Hold the API of a gateway that runs to its own OpenAPI document with generated calls; SERVER=HOST:PORT.
	target/conformance/bin/schemathesis run http://$(or $(SERVER),127.0.0.1:8080)/openapi.json --phases examples,coverage,fuzzing \
		--checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method \
		--exclude-path-regex '/realtime(/calls.*)?$$' --exclude-operation-id appendUpload --max-examples $(or $(EXAMPLES),20) --continue-on-failure --warnings off

# With the versions that the workspace has. The corpus that it grows stays in target, what it finds in fuzz/artifacts.
fuzz: packages nightly $(TOOLS)/bin/cargo-fuzz ## Fuzz forms, recordings, replies and texts for SECONDS (60) each, with nightly Rust, fetched when missing; ARGS='TARGET'.
	@cp Cargo.lock fuzz/Cargo.lock
	@for target in $(or $(ARGS),$(notdir $(wildcard fuzz/corpus/*))); do \
		mkdir -p target/fuzz/$$target && PATH=$(abspath $(TOOLS)/bin):$$PATH CARGO_TARGET_DIR=$(abspath target/fuzz/build) \
			$(CARGO) +$(NIGHTLY) fuzz run $$target target/fuzz/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(or $(SECONDS),60) -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 || exit 1; \
	done

bench: packages-bench build $(if $(RIVALS),target/rivals/pyvenv.cfg) ## Measure speed and size against a direct call and nginx; RIVALS=1: and smg and LiteLLM.
	$(CARGO) bench --workspace --bench edge --bench merge
	target/release/bench $(if $(RIVALS),--rivals target/rivals) $(ARGS)

bench-instructions: packages-count build ## Count the gateway's instructions, allocations and system calls per request.
	target/release/bench --instructions-only $(ARGS)

bench-gate: packages-test cargo ## Fail if a request to the gateway costs more instructions or allocations than the baseline; PROFILE=release.
	$(CARGO) build --workspace $(if $(RELEASE),--bins $(RELEASE),--all-targets)
	target/$(PROFILE)/bench --gate $(BASELINE)

bench-baseline: packages-test cargo ## Write that baseline anew.
	$(CARGO) build --workspace $(if $(RELEASE),--bins $(RELEASE),--all-targets)
	target/$(PROFILE)/bench --write-baseline $(BASELINE)

gpu-test: packages cargo models ## Break engines on a real GPU by CUDA faults, under guards; needs an NVIDIA driver and PyTorch; ARGS='FAULT'.
	$(CARGO) build --profile demo --package speechstack-proxy --package speechstack-engine
	$(PYTHON) e2e/gpu/faults.py target/demo/speechstack-proxy '$(MODELS)' $(ARGS)

advisories: $(TOOLS)/bin/cargo-deny ## Look the dependencies up in the advisory database; needs the network, fails nothing.
	-$(TOOLS)/bin/cargo-deny check advisories

cluster: cluster-ready $(TOOLS)/bin/helm ## Start a real Kubernetes of two nodes with all images, and say how to enter it.
	@if [ '$(MODELS)' != none ] && $(MAKE) --no-print-directory models; then target/$(PROFILE)/cluster images --models '$(MODELS)'; fi
	target/$(PROFILE)/cluster up

# The program that started it, which `cluster up` wrote into its script, or any other build of it.
cluster-down: ## End it, whichever PROFILE it was started with.
	@started=$$(sed -n "s|^exec '\($(CURDIR)/.*\)' enter .*|\1|p" target/cluster/bin/enter 2>/dev/null); \
	for program in "$$started" target/$(PROFILE)/cluster target/release/cluster target/debug/cluster; do \
		[ ! -x "$$program" ] || exec "$$program" down; \
	done; \
	echo 'no build of target/*/cluster is there to end a cluster with: run `make build` first' >&2; exit 1

cluster-test: ## Run the tests that need a real Kubernetes, in one that ends with them; ARGS='NAME' for some of them.
	@if [ "$$(uname -s)" = Linux ] && [ "$$(id -u)" = 0 ]; then \
		$(MAKE) cluster-ready $(TOOLS)/bin/helm && $(CARGO) test --workspace --test cluster $(RELEASE) --no-run && \
		exec target/$(PROFILE)/cluster run -- $(MAKE) --no-print-directory cluster-tests; \
	else \
		printf '\n*** CLUSTER TESTS SKIPPED: a cluster needs root on Linux ***\n\n' >&2; [ "$$CI" != true ]; \
	fi

thrift: packages-cluster cargo cluster-binaries $(TOOLS)/bin/helm ## Count what the operator asks of a real API server, with 200 stacks and 2,000 pods.
	$(CARGO) build --workspace $(if $(RELEASE),--bins $(RELEASE),--all-targets)
	$(CARGO) test --workspace --test thrift $(RELEASE) --no-run
	target/$(PROFILE)/cluster run --name bare --bare -- $(MAKE) --no-print-directory thrift-tests

cluster-bench: packages-cluster cargo cluster-binaries $(TOOLS)/bin/helm ## Measure the operator beside a real API server, with STACKS (1,000) stacks and 10,000 pods; PROFILE=release.
	$(CARGO) build --workspace --bins $(RELEASE)
	$(CARGO) test --workspace --test thrift $(RELEASE) --no-run
	SPEECHSTACK_THRIFT_STACKS=$(or $(STACKS),1000) SPEECHSTACK_THRIFT_PODS=10000 target/$(PROFILE)/cluster run --name bare --bare -- $(MAKE) --no-print-directory thrift-tests

# A debug build with the tests has the features of the tests' build, so that nothing is compiled twice.
images: packages-cluster cargo cluster-binaries ## Build the container images, from target/$(PROFILE).
	$(CARGO) build --workspace $(if $(RELEASE),--bins $(RELEASE),--all-targets)
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --package speechstack-livez --target $(HOST) $(RELEASE)
	target/$(PROFILE)/cluster images

# The reference engine is not among them: its Containerfile runs programs in the image, which takes a machine of that kind.
images-arm64: images packages-arm64 ## Build operator and proxy for linux/arm64 too, and manifest lists of both: target/cluster/images/*.oci.tar.
	rustup target add $(ARM64)
	$(CROSS) $(CARGO) build --package speechstack-operator --package speechstack-proxy --target $(ARM64) $(RELEASE)
	RUSTFLAGS='-C target-feature=+crt-static' $(CROSS) $(CARGO) build --package speechstack-livez --target $(ARM64) $(RELEASE)
	target/$(PROFILE)/cluster images --lists

# --- what `lint` is made of ---

fmt: cargo
	$(CARGO) fmt --all --check

clippy: packages cargo
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# Examples, of which there are none, bring the features of the tests' build: otherwise dependencies would be checked once more than by clippy.
# Programs that have the name of their library are documented with it.
doc: packages cargo
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --quiet --lib --bin speechstack --bin speechstack-livez \
		--bin bench --bin cluster --examples

deny: $(TOOLS)/bin/cargo-deny
	$(TOOLS)/bin/cargo-deny --log-level error check bans licenses sources

chart: $(addprefix $(TOOLS)/bin/,helm helm-docs kubeconform promtool) $(VENV)/pyvenv.cfg
	charts/check.sh $(TOOLS)/bin $(VENV)/bin/python

# A long file says why in a line `// long: reason`; nothing is left to do, no test is left out.
rules: cargo
	@find . -name '*.rs' -not -path './target/*' -not -path '*/node_modules/*' | sort | xargs awk ' \
		FNR == 1 { if (lines > 500 && !reason) long[file] = lines; file = FILENAME; reason = 0 } \
		{ lines = FNR } \
		/^ *\/\/ long: / { reason = 1 } \
		/todo!|unimplemented!|^ *#\[ignore/ { print FILENAME ":" FNR ": " $$0; bad = 1 } \
		END { if (lines > 500 && !reason) long[file] = lines; \
			for (file in long) { print file ": " long[file] " lines, give a `// long:` reason or split it"; bad = 1 } \
			exit bad }'
	@docs/check.sh
	@# The arrows between crates and rooms; by the compiler alone, as it needs no crate.
	@mkdir -p target && CARGO_MANIFEST_DIR='$(CURDIR)/e2e' rustc --edition 2024 --test e2e/tests/layout.rs -o target/layout
	@target/layout --quiet >target/layout.log 2>&1 || { cat target/layout.log >&2; exit 1; }

# --- what they need ---

tools: packages-test packages-cluster sdks voices clips cluster-binaries $(addprefix $(TOOLS)/bin/,cargo-deny helm helm-docs kubeconform promtool) ## Fetch and build what `lint` and `test` need beside this tree's crates.

# $(call ensure,PACKAGES): installs the Debian packages that are missing, or says which they are.
define ensure
@command -v dpkg-query >/dev/null || { echo 'not a Debian system; needed: $(strip $(1))' >&2; exit 0; }; \
	missing=''; for package in $(1); do \
		dpkg-query -W -f '$${db:Status-Status}\n' $$package 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then as_root=''; \
	elif command -v $(SUDO) >/dev/null && $(SUDO) -n true 2>/dev/null; then as_root='$(SUDO) -n'; \
	else printf 'Please install these packages first, then run make again:\n  apt-get install%s\n' "$$missing" >&2; exit 1; fi; \
	echo "installing$$missing"; \
	$$as_root apt-get update -qq && \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing
endef

packages:
	$(call ensure,$(PACKAGES_BUILD))

packages-test: packages
	$(if $(strip $(PACKAGES_TEST)),$(call ensure,$(PACKAGES_TEST)))

packages-cluster: packages
	$(call ensure,$(PACKAGES_CLUSTER))

packages-arm64: packages-cluster
	$(call ensure,$(PACKAGES_ARM64))

packages-count: packages
	$(call ensure,$(PACKAGES_COUNT))

packages-bench: packages
	$(if $(strip $(PACKAGES_BENCH)),$(call ensure,$(PACKAGES_BENCH)))

cargo:
	@command -v $(CARGO) >/dev/null && command -v rustc >/dev/null || { \
		echo 'Rust is needed, version $(RUST_VERSION) or newer: see https://rustup.rs' >&2; exit 1; }

RUST_VERSION = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

nightly: cargo
	@rustup toolchain list 2>/dev/null | grep -q '^$(NIGHTLY)' || rustup toolchain install $(NIGHTLY) --profile minimal --no-self-update || { \
		echo 'make fuzz needs the toolchain $(NIGHTLY), which rustup could not fetch from https://static.rust-lang.org:' >&2; \
		echo 'install it with rustup where the network is, or name one that is there: make fuzz NIGHTLY=nightly' >&2; exit 1; }

# The SDKs that the contract tests run; files inside each folder tell whether it is up to date.
sdks: target/sdk-go $(VENV)/pyvenv.cfg $(NODE_MODULES)/.package-lock.json $(PAGE_MODULES)/.package-lock.json

target/sdk-go: $(wildcard e2e/sdk/go/*) | go
	cd e2e/sdk/go && CGO_ENABLED=0 $(GO) build -o $(abspath $@) .

$(VENV)/pyvenv.cfg: e2e/sdk/requirements.txt | packages-test
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --requirement $< || { rm -rf $(VENV); exit 1; }
	@touch $@

e2e/sdk/agents/node_modules/.package-lock.json: e2e/sdk/agents/package.json e2e/sdk/agents/package-lock.json | packages-test
	cd $(dir $<) && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

# LiveKit, pipecat and LangChain, for `make clients` alone, 880 MB; other gateways, for the bench alone, 760 MB.
target/clients/pyvenv.cfg: e2e/sdk/agents/requirements.txt
target/rivals/pyvenv.cfg: e2e/sdk/rivals.txt
target/conformance/pyvenv.cfg: e2e/sdk/conformance.txt
target/clients/pyvenv.cfg target/rivals/pyvenv.cfg target/conformance/pyvenv.cfg: | packages-test
	@rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --requirement $< || { rm -rf $(@D); exit 1; }
	@touch $@

$(NODE_MODULES)/.package-lock.json: e2e/sdk/node/package.json e2e/sdk/node/package-lock.json | packages-test
	cd e2e/sdk/node && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

$(PAGE_MODULES)/.package-lock.json: e2e/page/package.json e2e/page/package-lock.json | packages-test
	cd e2e/page && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

$(TOOLS)/bin/cargo-fuzz:
	$(CARGO) install --debug --locked --root $(TOOLS) --version $(CARGO_FUZZ_VERSION) cargo-fuzz

$(TOOLS)/bin/helm: | go
	GOBIN=$(abspath $(@D)) CGO_ENABLED=0 $(GO) install helm.sh/helm/v4/cmd/helm@$(HELM_VERSION)

$(TOOLS)/bin/helm-docs: | go
	GOBIN=$(abspath $(@D)) CGO_ENABLED=0 $(GO) install github.com/norwoodj/helm-docs/cmd/helm-docs@$(HELM_DOCS_VERSION)

$(TOOLS)/bin/kubeconform: | go
	GOBIN=$(abspath $(@D)) CGO_ENABLED=0 $(GO) install github.com/yannh/kubeconform/cmd/kubeconform@$(KUBECONFORM_VERSION)

# Out of its package, since installing that would start a Prometheus server.
$(TOOLS)/bin/promtool:
	@mkdir -p $(TOOLS)/prometheus $(@D)
	cd $(TOOLS)/prometheus && { apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }; } && dpkg --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
	@mv $(TOOLS)/prometheus/usr/bin/promtool $@ && rm -r $(TOOLS)/prometheus

# Unoptimised, and without what a debugger needs: it runs for seconds, and is built for minutes.
$(TOOLS)/bin/cargo-deny: | cargo
	CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install --debug --locked --root $(TOOLS) --version $(CARGO_DENY_VERSION) cargo-deny

# --- the cluster ---

RELEASE = $(if $(filter debug,$(PROFILE)),,--profile $(PROFILE))
ARM64 := aarch64-unknown-linux-gnu
CROSS = CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
HOST = $(shell RUSTUP_TOOLCHAIN=$(RUSTUP_TOOLCHAIN) rustc --print host-tuple)

cluster-ready: packages-cluster cluster-binaries images

# What `cluster-test` runs inside the clusters.
cluster-tests:
	$(CARGO) test --workspace --test cluster $(RELEASE) -- $(ARGS)

thrift-tests:
	$(CARGO) test --workspace --test thrift $(RELEASE) -- $(ARGS)

go:
	@command -v $(GO) >/dev/null || { \
		echo 'Go is needed for the test cluster and its SDK test, version $(GO_VERSION) or newer: see https://go.dev/dl' >&2; exit 1; }

cluster-binaries: $(addprefix target/cluster/bin/,$(COMPONENTS) pause)

$(addprefix target/cluster/bin/,$(COMPONENTS)): target/cluster/bin/kubernetes
	@ln -sfn kubernetes $@

VERSION_FLAGS = -X k8s.io/component-base/version.gitVersion=$(KUBERNETES_VERSION) \
	-X k8s.io/component-base/version.gitMajor=$(word 1,$(subst ., ,$(KUBERNETES_VERSION:v%=%))) \
	-X k8s.io/component-base/version.gitMinor=$(word 2,$(subst ., ,$(KUBERNETES_VERSION)))

# A quarter of an hour from nothing on two cores, seconds when the compiler's cache is warm.
target/cluster/bin/kubernetes: $(wildcard e2e/cluster/*.go) e2e/cluster/go.mod e2e/cluster/go.sum | go
	@echo 'building Kubernetes $(KUBERNETES_VERSION), which takes minutes the first time'
	cd e2e/cluster && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w $(VERSION_FLAGS)' -o $(CURDIR)/$@ .

target/cluster/bin/pause: e2e/cluster/pause/main.go e2e/cluster/go.mod | go
	cd e2e/cluster && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(CURDIR)/$@ ./pause

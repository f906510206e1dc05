# What a developer runs. `make help` lists it.

CARGO ?= cargo

# The image: its name, the image that it is built in and the one that it is put on (`scratch` will do as well).
IMAGE ?= sftp-s3-connector
BUILD_IMAGE ?= rust:1.95-bookworm
RUNTIME_IMAGE ?= gcr.io/distroless/cc-debian12:nonroot

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
REVISION = $(shell git rev-parse HEAD 2>/dev/null)
CREATED = $(shell date -u +%Y-%m-%dT%H:%M:%SZ)

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

.PHONY: demo
demo: ## the main job, end to end, in one process: needs nothing but Rust and a C compiler
	@# Together: built apart, the two want other features of the same dependencies, and build them twice.
	$(CARGO) build --locked --bin sftp-s3-connector --example demo
	$(CARGO) run --locked --quiet --example demo

.PHONY: test
test: setup ## every test, the real servers' and the image's included (installs what they need)
	@if docker info >/dev/null 2>&1; then \
	    set -x; $(CARGO) test --locked --features real-servers,docker; \
	elif [ -n "$$CI" ]; then \
	    echo "The image test takes a running Docker engine, and CI skips nothing: there is none here."; exit 1; \
	else \
	    echo "NOT TESTED: the container image. It takes a running Docker engine, and there is none here."; \
	    set -x; $(CARGO) test --locked --features real-servers; \
	fi

.PHONY: setup
setup: ## install what `make test` needs: sshd, and SeaweedFS and moto in .venv
	@scripts/setup

# What to compare (names, or their beginnings: `make bench WORKLOADS="W1 W5"`), and further flags (`--pairs 3`).
WORKLOADS ?=
BENCH_FLAGS ?=
# The profile of what is measured. What measures is built with the tests' profile.
BENCH_PROFILE ?= release
BENCH_BINARIES = target/$(if $(filter dev,$(BENCH_PROFILE)),debug,$(BENCH_PROFILE))

.PHONY: bench
bench: ## the release binary beside rclone and others: a table of ratios (an hour or more)
	@scripts/setup bench
	$(CARGO) build --locked --profile $(BENCH_PROFILE) --bin sftp-s3-connector
	$(CARGO) build --locked --profile $(BENCH_PROFILE) --example upload_floor
	$(CARGO) run --locked --quiet --features real-servers --example bench -- $(BENCH_FLAGS) \
	    --connector $(BENCH_BINARIES)/sftp-s3-connector --upload-floor $(BENCH_BINARIES)/examples/upload_floor $(WORKLOADS)

.PHONY: bench-quick
bench-quick: ## the same in a few minutes: two small workloads, no bounds; a failure or wrong byte of the program fails it
	@scripts/setup bench
	@# Together, as the tests build them: apart, they build their dependencies twice.
	$(CARGO) build --locked --features real-servers --bin sftp-s3-connector --example bench
	$(if $(filter dev,$(BENCH_PROFILE)),,$(CARGO) build --locked --profile $(BENCH_PROFILE) --bin sftp-s3-connector)
	target/debug/examples/bench --quick --pairs 3 $(BENCH_FLAGS) \
	    --connector $(BENCH_BINARIES)/sftp-s3-connector $(WORKLOADS)

.PHONY: lint
lint: ## format, clippy, rustdoc: what .ci/run holds a change to before it tests it
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --all-features

.PHONY: image
image: ## the container image: IMAGE, BUILD_IMAGE and RUNTIME_IMAGE may be given
	docker build --tag "$(IMAGE)" \
	    --build-arg BUILD_IMAGE="$(BUILD_IMAGE)" --build-arg RUNTIME_IMAGE="$(RUNTIME_IMAGE)" \
	    --build-arg VERSION="$(VERSION)" --build-arg REVISION="$(REVISION)" --build-arg CREATED="$(CREATED)" \
	    $(DOCKER_BUILD_FLAGS) .

# To a repository in ECR, by its name, or elsewhere, by its address (`make push REPOSITORY=registry.example/team/connector TAG=1`).
REPOSITORY ?= sftp-s3-connector
TAG ?= latest

.PHONY: push
push: ## build the image and push it to ECR: REPOSITORY, TAG and PLATFORM (linux/arm64) may be given
	@BUILD_IMAGE="$(BUILD_IMAGE)" RUNTIME_IMAGE="$(RUNTIME_IMAGE)" DOCKER_BUILD_FLAGS="$(DOCKER_BUILD_FLAGS)" scripts/push "$(REPOSITORY)" "$(TAG)"

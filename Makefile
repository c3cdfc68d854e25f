# `make` prints what there is. Everything works in a fresh clone with Go, make
# and a Debian-like system; what else is needed is installed on the way (see
# scripts/packages.sh and scripts/tool.sh for what goes where).

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

export GO   ?= go
export TEST ?= ./...
FUZZTIME  ?= 10s
FUZZ      ?= ./...
BENCH     ?= .
BENCHTIME ?= 1s
VERSION   ?= $(shell git describe --tags --match 'v*' --always --dirty 2>/dev/null || echo unknown)

# What demo and tests use of the distribution, by package name.
DEMO_PACKAGES := runc busybox-static
TEST_PACKAGES := $(DEMO_PACKAGES) postgresql iproute2

.PHONY: help
help: ## print this
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  TEST=./internal/...   FUZZ=./internal/... FUZZTIME=$(FUZZTIME)   BENCH=$(BENCH) BENCHTIME=$(BENCHTIME)   DEMO_KEEP=1   PROVOST_TOOLS=where tools are kept"

.PHONY: build
build: ## bin/provost
	$(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X provost.dev/provost/internal/cli.release=$(VERSION)' -o bin/provost ./cmd/provost

.PHONY: tools
tools: ## install what tests and demo need: distribution packages, cosign, crane
	@scripts/packages.sh $(TEST_PACKAGES)
	@scripts/tool.sh crane >/dev/null
	@scripts/tool.sh cosign >/dev/null

.PHONY: check
check: ## gofmt and go vet
	@scripts/check.sh

.PHONY: test
test: tools check ## everything: tools, check, all tests, none skipped; this is what CI runs
	@scripts/test.sh

.PHONY: test-short
test-short: ## the tests that are quick and need nothing
	$(GO) test -short ./...

.PHONY: race
race: tools ## all tests under the race detector (needs a C compiler)
	@CGO_ENABLED=1 scripts/test.sh -race -timeout 40m

.PHONY: lint
lint: ## check, staticcheck, tidy and verified modules
	@scripts/check.sh lint

.PHONY: fmt
fmt: ## format the Go files
	$(GO) fmt ./...

.PHONY: demo
demo: build ## the provable workload, step by step, on a server of its own (DEMO_KEEP=1 leaves it running)
	@scripts/packages.sh $(DEMO_PACKAGES)
	@COSIGN=$$(scripts/tool.sh cosign); CRANE=$$(scripts/tool.sh crane); export COSIGN CRANE; \
		PROVOST=$(CURDIR)/bin/provost PATH="$$PATH:/usr/sbin:/sbin" ./examples/provable-workload/demo.sh

.PHONY: bench
bench: ## the figures of docs/benchmarks.md, each beside a baseline of the same run
	bench/run.sh

.PHONY: microbench
microbench: ## every Go benchmark; BENCH=regexp picks
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem ./...

.PHONY: fuzz
fuzz: ## every fuzz target of FUZZ for FUZZTIME each
	@scripts/fuzz.sh $(FUZZTIME) $(FUZZ)

.PHONY: generate
generate: ## generated files
	$(GO) generate ./...

.PHONY: verify
verify: ## fail if generated files are not current
	@scripts/verify-generated.sh

.PHONY: clean
clean: ## remove what was built here (built tools stay in their cache)
	rm -rf bin

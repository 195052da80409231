# Every target installs what it needs (Debian packages, Go modules, npm).
SHELL := /bin/bash -o pipefail
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

CGO_PACKAGES := gcc=gcc /usr/include/stdlib.h=libc6-dev
POSTGRES_PACKAGES := /usr/lib/postgresql/*/bin/postgres=postgresql psql=postgresql-client
CLIENT_PACKAGES := java=default-jdk-headless javac=default-jdk-headless /usr/share/java/postgresql.jar=libpostgresql-jdbc-java \
	/usr/lib/python3/dist-packages/psycopg2=python3-psycopg2 /usr/lib/python3/dist-packages/psycopg=python3-psycopg \
	/usr/lib/python3/dist-packages/asyncpg=python3-asyncpg node=nodejs npm=npm
KERNEL_PACKAGES := ip=iproute2 setpriv=util-linux
BPF_PACKAGES := clang=clang llvm-strip=llvm /usr/include/bpf/bpf_helpers.h=libbpf-dev
SCREEN_PACKAGES := curl=curl openssl=openssl

.PHONY: versitygw build test test-go bypass-report demo generate lint bench fuzz image clean dex clients

build:
	@tools/ensure $(CGO_PACKAGES)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/weir ./cmd/weir

# The identity provider of the tests and the demo: a module of its own, so that
# none of it is in the product's dependencies.
dex: bin/dex

bin/dex: test/dex/go.mod test/dex/go.sum
	cd test/dex && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o ../../bin/dex github.com/dexidp/dex/cmd/dex
	rm -rf bin/dex-web && cp -r "$$(cd test/dex && $(GO) list -m -f '{{.Dir}}' github.com/dexidp/dex)/web" bin/dex-web && chmod -R u+w bin/dex-web

# The object store of the tests, a module of its own too.
versitygw: bin/versitygw

bin/versitygw: test/versitygw/go.mod test/versitygw/go.sum
	cd test/versitygw && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o ../../bin/versitygw github.com/versity/versitygw/cmd/versitygw

# node-postgres for the client tests.
clients: test/clients/node_modules/.package-lock.json
test/clients/node_modules/.package-lock.json: test/clients/package.json test/clients/package-lock.json
	cd test/clients && npm ci --no-audit --no-fund --silent

test: build dex versitygw
	@tools/ensure $(POSTGRES_PACKAGES) $(CLIENT_PACKAGES) $(KERNEL_PACKAGES) $(SCREEN_PACKAGES)
	@$(MAKE) --no-print-directory clients
	@$(MAKE) --no-print-directory test-go

# -p 2: packages start servers of their own; two cores. The skips are counted: each
# one names its reason.
test-go:
	$(GO) test -count=1 -timeout 20m -p 2 -json ./... | $(GO) run ./test/testsum

# test/bypass/REPORT.md from a run of its corpora.
bypass-report: build dex
	@tools/ensure $(POSTGRES_PACKAGES) $(KERNEL_PACKAGES)
	$(GO) test -count=1 ./test/bypass -update

demo: build dex
	@tools/ensure $(POSTGRES_PACKAGES) $(KERNEL_PACKAGES)
	bin/weir demo

# The eBPF objects are committed; clang is needed only here.
generate:
	@tools/ensure $(BPF_PACKAGES)
	$(GO) generate ./bpf

lint:
	@tools/ensure $(CGO_PACKAGES)
	@tools/lint

bench:
	@tools/ensure $(CGO_PACKAGES) $(POSTGRES_PACKAGES)
	$(GO) test -run '^$$' -bench . -benchmem ./internal/... ./pkg/...

# FUZZTIME for each target.
FUZZTIME ?= 30s
fuzz:
	@tools/ensure $(CGO_PACKAGES)
	@FUZZTIME=$(FUZZTIME) tools/fuzz

image: build
	@tools/ensure buildah=buildah
	tools/image $(VERSION)

clean:
	rm -rf bin

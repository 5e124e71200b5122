# weir: make help

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
GO          ?= go
# The version comes from the repository, where there is one.
BUILD       := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '-s -w'
FUZZTIME    ?= 30s
SOAK        ?= 3600
PREFIX      ?= /usr/local
STATICCHECK := $(GO) tool -modfile=.ci/tools.mod staticcheck

.DEFAULT_GOAL := help
.PHONY: help build run test check fuzz crash soak bench cross package boot install clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/weir, static
	$(BUILD) -o bin/weir ./agent

run: build ## everything on this machine, with nothing to install: the demo
	bin/weir demo

test: ## all tests, with the race detector; installs ffmpeg, mosquitto and gcc on Debian
	.ci/install-test-tools
	$(GO) test -race -timeout 25m ./...

check: ## gofmt, vet, staticcheck, go.mod, import rule, size limits, documents
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted (gofmt -w): $$files"; exit 1; fi
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) mod tidy -diff
	$(GO) test -count=1 -run '^(TestImports|TestLimits|TestDocuments)$$' ./agent

fuzz: ## every fuzz target for FUZZTIME (30s)
	@packages=$$($(GO) list ./...); for package in $$packages; do \
	  list=$$($(GO) test -list '^Fuzz' $$package); \
	  for target in $$(grep '^Fuzz' <<< "$$list" || true); do \
	    echo "$$package $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done

crash: ## the long crash drills: cuts, kills, damage (about ten minutes)
	WEIR_CRASH=full $(GO) test -count=1 -timeout 60m -v -run 'Crash|Kill|Damage|Failed' ./buffer/...

soak: ## the drills with kills and an outage, over and over for SOAK seconds (3600)
	@while [ $$SECONDS -lt $(SOAK) ]; do \
	  $(GO) test -count=1 -timeout 20m -v -run '^(TestKills|TestOutage)$$' ./agent/acceptance; \
	done

bench: build ## figures of this machine, each beside its goal
	bin/weir bench log --dir $${BENCH_DIR:-$$PWD/bin}
	$(GO) test -tags figures -count=1 -timeout 20m -run '^TestFigures$$' -v ./agent/acceptance

cross: ## static binaries for linux amd64 and arm64 in dist; 32 bit must be refused
	GOOS=linux GOARCH=amd64 $(BUILD) -o dist/weir-linux-amd64 ./agent
	GOOS=linux GOARCH=arm64 $(BUILD) -o dist/weir-linux-arm64 ./agent
	GOOS=linux GOARCH=arm64 $(BUILD) -tags slim -o dist/weir-slim-linux-arm64 ./agent
	@for arch in arm 386; do \
	  if out=$$(GOOS=linux GOARCH=$$arch CGO_ENABLED=0 $(GO) build -o /dev/null ./agent 2>&1); then \
	    echo "linux/$$arch builds; it must be refused, Badger loses records there"; exit 1; \
	  fi; \
	  grep -q weir_needs_64_bit <<< "$$out" || { echo "linux/$$arch is refused for another reason: $$out"; exit 1; }; \
	  echo "linux/$$arch: refused, as it has to be"; \
	done

package: ## .deb and .tar.gz for amd64 and arm64, bills of materials and SHA256SUMS in dist
	GO=$(GO) systemd/package/build dist

boot: ## the package in a booted Debian: install, run, hang, upgrade, purge (root; about five minutes)
	.ci/install-test-tools boot
	$(GO) test -tags boot -count=1 -timeout 20m -v ./systemd/boottest

install: build ## the binary, the unit and a sample configuration below DESTDIR and PREFIX
	install -D -m 0755 bin/weir $(DESTDIR)$(PREFIX)/bin/weir
	sed 's|^ExecStart=/usr/local/|ExecStart=$(PREFIX)/|' systemd/weir.service | install -D -m 0644 /dev/stdin $(DESTDIR)/lib/systemd/system/weir.service
	install -D -m 0644 systemd/weir-camera.conf $(DESTDIR)$(PREFIX)/share/weir/weir-camera.conf
	install -D -m 0644 systemd/package/sysusers.conf $(DESTDIR)/usr/lib/sysusers.d/weir.conf
	test -e $(DESTDIR)/etc/weir/weir.yaml || { install -d $(DESTDIR)/etc/weir && bin/weir init -o $(DESTDIR)/etc/weir/weir.yaml; }
	test -n "$(DESTDIR)" || { systemd-sysusers weir.conf && chgrp -R weir-config /etc/weir && chmod 2750 /etc/weir && chmod g+r /etc/weir/weir.yaml; }

clean: ## remove what the build made
	rm -rf bin dist

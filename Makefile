# build        the binary, bin/tfguard
# test         everything: unit tests and end-to-end, with the race detector
# demo         the main job on the sandbox, as a tour
# e2e          the end-to-end scripts alone
# e2e-moto     the same against moto_server, a second opinion on the sandbox
# lint         gofmt, go vet, staticcheck, the import rules
# bench        the benchmarks, interleaved with bare terraform
# fuzz         every fuzz target for FUZZTIME each

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
FUZZTIME ?= 30s

.PHONY: build test demo e2e e2e-moto lint bench fuzz clean

build:
	$(GO) build -ldflags "-s -w -X github.com/tfguard/tfguard/internal/app.Version=$(VERSION)" -o bin/tfguard ./cmd/tfguard

test:
	$(GO) test -race ./...

demo: build
	./examples/demo.sh bin/tfguard

e2e:
	$(GO) test -race -count=1 ./cmd/tfguard

e2e-moto:
	./cmd/tfguard/testdata/moto.sh

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt would change:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test -run TestImports ./cmd/tfguard

bench:
	$(GO) test -run '^$$' -bench . -benchtime 1x -count 1 ./cmd/tfguard

fuzz:
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p 2>/dev/null | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
	  done; done

clean:
	rm -rf bin

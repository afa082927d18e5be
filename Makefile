# build        the binary, bin/tfguard
# test         everything: unit tests and end-to-end, with the race detector
# demo         the main job on the sandbox, as a tour
# e2e          the end-to-end scripts alone
# e2e-moto     the same against moto_server, a second opinion on the sandbox
# lint         gofmt, go vet, staticcheck, the import rules
# bench        the benchmarks, interleaved with bare terraform
# fuzz         every fuzz target for FUZZTIME each
# storm        every way to cancel and kill a run, at MOMENTS random moments too: docs/storm.md
# storm-restore  restore and migrate-lock killed at KILLS random moments each
# crowd        CROWD applies at once on one state: no two may overlap
# race-locks   ROUNDS locks in each store, replaced while approved ones are removed

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
FUZZTIME ?= 30s
MOMENTS  ?= 200
KILLS    ?= 100
SEED     ?= 0
CROWD    ?= 50
ROUNDS   ?= 10000

.PHONY: build test demo e2e e2e-moto lint bench fuzz storm storm-restore crowd race-locks clean

build:
	$(GO) build -ldflags "-s -w -X github.com/tfguard/tfguard/internal/app.Version=$(VERSION)" -o bin/tfguard ./cmd/tfguard

test:
	$(GO) test -race -timeout 14m ./...

demo: build
	./examples/demo.sh bin/tfguard

e2e:
	$(GO) test -race -count=1 -timeout 14m ./cmd/tfguard

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

storm:
	$(GO) test -count=1 -timeout 4h -v ./internal/storm -long -moments $(MOMENTS) -seed $(SEED)

storm-restore:
	$(GO) test -count=1 -timeout 2h -run TestRestoreStorm -v ./internal/storm -kills $(KILLS) -seed $(SEED)

crowd:
	$(GO) test -count=1 -timeout 1h -run TestCrowd -v ./cmd/tfguard -crowd $(CROWD)

race-locks:
	$(GO) test -count=1 -timeout 3h -p 1 -run TestRace -v ./internal/lock/dynamolock ./internal/lock/s3lock -rounds $(ROUNDS)

clean:
	rm -rf bin

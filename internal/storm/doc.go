// Package storm is a test alone: tfguard is cancelled, cut off and killed in
// every way and at any moment, and afterwards no lock is left, no resource is
// missing from the state, no process goes on, and the next plan works (promise
// G3, issue 4). `make storm` runs all of it, `make test` a short form; what came
// out is in docs/storm.md. It needs Linux, for /proc and pseudo-terminals.
package storm

package main

import (
	"testing"
	"time"

	"github.com/tfguard/tfguard/internal/testkit"
)

// BenchmarkEngine is what the engine adds to a run (issue 4): the same apply in
// one process (--no-detach) and in two, taking turns in one folder; the median
// of the differences. The target is 40 ms.
func BenchmarkEngine(b *testing.B) {
	tfguard := buildProgram(b)
	f := newBench(b, testkit.Lockfile)
	change := 0
	apply := func(args ...string) time.Duration {
		change++
		return timed(change, func(n int) {
			f.run(tfguard, append([]string{"apply", "--auto-approve", "--var", greeting(n)}, args...)...)
		})
	}
	apply() // init, and the first state
	var more, alone []float64
	for b.Loop() {
		for i := range 2 * pairs {
			var one, two time.Duration
			if i%2 == 0 {
				one, two = apply("--no-detach"), apply()
			} else {
				two, one = apply(), apply("--no-detach")
			}
			more, alone = append(more, (two-one).Seconds()*1000), append(alone, one.Seconds()*1000)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(more), "more-ms")
	b.ReportMetric(median(alone), "alone-ms")
}

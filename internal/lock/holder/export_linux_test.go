package holder

// StartTime is when a process was started, as a record has it.
func StartTime(pid int) string {
	ticks, _ := startTime(pid)
	return ticks
}

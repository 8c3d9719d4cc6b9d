"""What every room may use: errors, paths, durations."""

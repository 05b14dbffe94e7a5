"""Models that rank a candidate by a history."""

"""Models that tell the next item of a sequence."""

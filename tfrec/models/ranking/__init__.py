"""Models that rank an example by its fields."""

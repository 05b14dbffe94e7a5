"""Models of several tasks."""

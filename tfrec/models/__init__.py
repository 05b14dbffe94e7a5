"""The catalogue of models."""

"""Keras layers that models are built of."""

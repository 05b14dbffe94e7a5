"""Serving of SavedModels with TF Serving's API, where no container runs."""

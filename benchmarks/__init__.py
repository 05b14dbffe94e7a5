"""What the models and the pipeline are worth, measured: the figures of docs/results.md."""

"""MLflow: one run per processed batch, with its pictures."""

"""KNIME workflows: the batch application where it is installed, an engine of our own where not."""

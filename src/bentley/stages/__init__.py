"""The stages of the pipeline: the only place where the parts meet."""

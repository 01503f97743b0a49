"""Market data over HTTP, other than what a connector brings."""

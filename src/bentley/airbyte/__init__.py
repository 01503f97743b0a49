"""Airbyte sources as processes that speak the Airbyte protocol."""

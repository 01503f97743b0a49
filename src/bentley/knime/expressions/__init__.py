"""KNIME's three expression languages (Math Formula, Rule Engine, String Manipulation) on polars.

Each module compiles text into one polars expression and refuses, before any row is read,
whatever it doesn't know. Written from KNIME's published node descriptions; not yet
compared with a KNIME run.
"""

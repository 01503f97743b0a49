"""KNIME's three expression languages (Math Formula, Rule Engine, String Manipulation) on polars.

Each module compiles text into one polars expression and refuses, before any row is read,
whatever it doesn't know. Without a schema it only checks what no schema could mend: the syntax,
the functions, the patterns. Written from KNIME's published node descriptions; not yet
compared with a KNIME run.
"""

"""Pure functions and frozen values: no I/O, no clock of their own, no framework."""

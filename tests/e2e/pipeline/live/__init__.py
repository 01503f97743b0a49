"""Tests on one pipeline that is up for all of them, and ends after the last: a package has that scope."""

"""What a source's end means: the errors of the one tree, with all that the source said.

SourceError
├── SourceConfigurationError (ConfigurationError)   every failure is of the configuration
├── SourceFatalError        (FatalError)           the source itself failed
└── SourceRetriableError   (RetriableError)       at least one failure may pass
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bentley.airbyte.protocol import Failure
from bentley.domain.errors import BentleyError, ConfigurationError, FatalError, RetriableError

_CONNECTION = re.compile(
    r"connection|timed?.?out|unreachable|name or service|temporarily|resolve|refused|reset by",
    re.IGNORECASE,
)
_SHOWN_FAILURES = 5
_SHOWN_TAIL = 1500
_SIGNALLED = 128


class SourceError(BentleyError):
    """A source failed; rows and states that it gave before remain good.

    `failures` says what failed and why, one each; a symbol that the exchange doesn't know is
    one of them while the other symbols were read to their end. `orderly` tells that the source
    itself came to its end and reported all of them, so what isn't named was read whole.
    """

    failures: tuple[Failure, ...] = ()
    orderly: bool = False


class SourceConfigurationError(SourceError, ConfigurationError):
    """The source says that its configuration is wrong, in whole or for the parts named."""


class SourceFatalError(SourceError, FatalError):
    """The source failed in itself."""


class SourceRetriableError(RetriableError, SourceError):
    """The source failed for a passing reason; `retry_after` in seconds where it gave one."""


def verdict(
    failures: Sequence[Failure], *, code: int, stderr: str, cut: bool = False
) -> SourceError | None:
    """The error that a source's end amounts to, or None where it did its work."""
    if cut or code > _SIGNALLED or (code and not failures):
        error = _abnormal(failures, code, stderr, cut=cut)
    elif failures:
        error = _reported(failures)
        error.orderly = True
    else:
        return None
    error.failures = tuple(failures)
    return error


def _abnormal(failures: Sequence[Failure], code: int, stderr: str, *, cut: bool) -> SourceError:
    end = f"was ended by signal {code - _SIGNALLED}" if code > _SIGNALLED else f"exited with {code}"
    if cut:
        end += " in the middle of a message"
    said = "; ".join(failure.message for failure in failures[:_SHOWN_FAILURES])
    text = f"the source {end}"
    if said:
        text += f": {said}"
    if stderr:
        text += f"; the end of its standard error: {stderr[-_SHOWN_TAIL:]}"
    passing = cut or code > _SIGNALLED or _CONNECTION.search(stderr)
    return SourceRetriableError(text) if passing else SourceFatalError(text)


def _reported(failures: Sequence[Failure]) -> SourceError:
    texts = [failure.message for failure in failures[:_SHOWN_FAILURES]]
    if len(failures) > _SHOWN_FAILURES:
        texts.append(f"and {len(failures) - _SHOWN_FAILURES} more")
    text = "; ".join(texts)
    kinds = {_kind(failure) for failure in failures}
    if "transient_error" in kinds:
        waits = [failure.detail.get("retry_after") for failure in failures]
        wishes = [float(wait) for wait in waits if isinstance(wait, int | float)]
        return SourceRetriableError(text, retry_after=max(wishes, default=None))
    return SourceFatalError(text) if "system_error" in kinds else SourceConfigurationError(text)


def _kind(failure: Failure) -> str:
    if failure.kind == "system_error" and _CONNECTION.search(failure.message):
        return "transient_error"
    return failure.kind

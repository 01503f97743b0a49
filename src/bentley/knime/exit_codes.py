"""What an exit of KNIME's batch application means for us: which error, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bentley.domain.errors import BentleyError, ConfigurationError, FatalError, RetriableError

_SHOWN = 20
_SIGNALS_FROM = 128
_CODES_TO = 255

_USAGE = "Usage: The following options are available"
_NO_CONSOLE = "No console for credential prompt available"
_PASSING = (
    "Communications link failure",
    "Connection refused",
    "Too many connections",
    "Deadlock found",
    "Lock wait timeout",
    "The driver has not received any packets",
)
_LOCKED = (".knimeLock", "locked by another KNIME instance")
_LACKS = ("not available from extension", "Unsupported workflow version")
_NO_APPLICATION = "could not be found in the registry"
_NOT_INSTALLED = (
    "the KNIME Batch Executor is not installed (an extension of its own from 5.9 on);"
    " install it by File > Install KNIME Extensions"
)
_NO_DISPLAY = ("Cannot open display", "cannot open display", "libgtk")


def failure(exit_code: int, log_tail: Sequence[str]) -> BentleyError | None:
    """The error for this exit, with the end of the log; None where KNIME says that all is well.

    None is no proof of success: what the run wrote to its landing table is.
    """
    if _any(log_tail, (_NO_CONSOLE,)):
        what = "KNIME wanted to ask for a credential; let the workflow take it from a variable"
        return ConfigurationError(_with_tail(what, log_tail))
    if exit_code == 0:
        if _any(log_tail, (_USAGE,)):
            what = "KNIME printed its usage and ran nothing: its launcher dropped our arguments"
            return ConfigurationError(_with_tail(what, log_tail))
        return None
    if exit_code < 0 or _SIGNALS_FROM < exit_code <= _CODES_TO:
        signal = -exit_code if exit_code < 0 else exit_code - _SIGNALS_FROM
        what = f"KNIME was ended by signal {signal} (9 may mean: out of memory); run it again"
        return RetriableError(_with_tail(what, log_tail))
    kind, what = _known(exit_code, log_tail)
    return kind(_with_tail(f"KNIME ended with {exit_code}: {what}", log_tail))


def _known(exit_code: int, tail: Sequence[str]) -> tuple[type[BentleyError], str]:
    if exit_code in {3, 4} and _any(tail, _PASSING):
        return RetriableError, "the database did not answer"
    if exit_code == 3:  # noqa: PLR2004  (the codes are named in the texts)
        return _not_loaded(tail)
    if exit_code == 13 and _any(tail, (_NO_APPLICATION,)):  # noqa: PLR2004
        return ConfigurationError, _NOT_INSTALLED
    if _any(tail, _NO_DISPLAY):
        return ConfigurationError, "it wants a display; install GTK 3, or start it by xvfb-run"
    return _TEXTS.get(exit_code, (FatalError, "not a code that KNIME documents"))


def _not_loaded(tail: Sequence[str]) -> tuple[type[BentleyError], str]:
    if _any(tail, _LOCKED):
        return ConfigurationError, "the workflow is locked (.knimeLock); close it in KNIME"
    if _any(tail, _LACKS):
        what = "this KNIME lacks an extension, or is older than the workflow; update KNIME"
        return ConfigurationError, what
    return FatalError, "the workflow could not be loaded; open it in KNIME to see the fault"


_TEXTS: dict[int, tuple[type[BentleyError], str]] = {
    1: (ConfigurationError, "its launcher could not start Java; repair the installation"),
    2: (ConfigurationError, "it refused an argument or a node option"),
    4: (FatalError, "a node failed, or the run was cancelled"),
    5: (
        ConfigurationError,
        _NOT_INSTALLED,
    ),
    13: (FatalError, "Eclipse failed to start; look for the cause in the log"),
    23: (RetriableError, "it wants to be restarted; run it again"),
    24: (RetriableError, "it wants to be relaunched; run it again"),
}


def _any(lines: Iterable[str], texts: Sequence[str]) -> bool:
    return any(text in line for line in lines for text in texts)


def _with_tail(what: str, tail: Sequence[str]) -> str:
    shown = "\n".join(f"  {line}" for line in list(tail)[-_SHOWN:])
    return f"{what}\nthe end of its log:\n{shown}" if shown else f"{what} (its log is empty)"

"""The values of a column as they lie in memory.

By the Arrow C data interface (https://arrow.apache.org/docs/format/CStreamInterface.html), for to
load pyarrow for this alone takes 40 MB and a quarter of a second.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import polars as pl


class _Array(ctypes.Structure):
    """`ArrowArray`: a piece of a column."""


_Release = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Array))
_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.c_void_p),
    ("dictionary", ctypes.c_void_p),
    ("release", _Release),
    ("private_data", ctypes.c_void_p),
]


class _Stream(ctypes.Structure):
    """`ArrowArrayStream`: the pieces of a column; the capsule around it frees it."""

    _fields_ = (
        ("get_schema", ctypes.c_void_p),
        ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Array))),
        ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)


def values(column: pl.Series) -> Iterator[ctypes.Array[ctypes.c_char]]:
    """Give the values of a column in pieces that live until the next; a decimal has 16 bytes.

    Little end first, as this machine has them. Raises TypeError for a column that is neither of
    Int64 nor of decimals, ValueError for one with nulls.
    """
    if column.dtype != pl.Int64 and not column.dtype.is_decimal():
        msg = f"a column of {column.dtype} has no values of a known width"
        raise TypeError(msg)
    if column.null_count():
        msg = f"{column.null_count()} of the {len(column)} values of {column.name!r} are missing"
        raise ValueError(msg)
    width = 16 if column.dtype.is_decimal() else 8
    capsule = column.__arrow_c_stream__(None)
    address = _pointer(capsule, b"arrow_array_stream")
    stream = _Stream.from_address(address)
    while True:
        array = _Array()
        if stream.get_next(address, ctypes.byref(array)):
            raise MemoryError(stream.get_last_error(address))
        if not array.release:
            return
        try:
            if array.length:
                start = array.buffers[1] + array.offset * width
                yield (ctypes.c_char * (array.length * width)).from_address(start)
        finally:
            array.release(ctypes.byref(array))

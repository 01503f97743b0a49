"""Writes small folders of recorded klines for the tests of this folder."""

import pytest

HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_asset_volume,"
    "trades,taker_buy_base,taker_buy_quote,ignore"
)


@pytest.fixture
def write(tmp_path):
    """Write rows (lists of cells) as a file of the folder, and return the folder."""

    def write(name, rows, *, header=HEADER):
        lines = [header] if header else []
        lines += [",".join(map(str, row)) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path

    return write

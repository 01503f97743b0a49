"""Leads the addresses of Airflow 2's pages to the pages of today.

`/calendar` and `/details` are pages of Airflow 3 too, and stay.
"""

from __future__ import annotations

import re
from typing import Any

from airflow.plugins_manager import AirflowPlugin

_OLD_PAGE = re.compile(r"^/dags/([^/]+)/(?:grid|graph|tree)/?$")
_TEMPORARY_REDIRECT = 307


class OldPages:
    """An ASGI middleware: `/dags/ID/grid` and its like answer with `/dags/ID`."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Redirect an old page, pass on everything else."""
        old = _OLD_PAGE.match(scope["path"]) if scope["type"] == "http" else None
        if old is None:
            await self.app(scope, receive, send)
            return
        location = f"{scope.get('root_path', '')}/dags/{old[1]}".encode()
        headers = [(b"location", location), (b"content-length", b"0")]
        await send(
            {"type": "http.response.start", "status": _TEMPORARY_REDIRECT, "headers": headers}
        )
        await send({"type": "http.response.body", "body": b""})


class BentleyPages(AirflowPlugin):
    """What Bentley adds to Airflow's web server."""

    name = "bentley_pages"
    fastapi_root_middlewares = [  # noqa: RUF012 - Airflow reads a plain list
        {"middleware": OldPages, "args": [], "kwargs": {}, "name": "Pages of Airflow 2"}
    ]

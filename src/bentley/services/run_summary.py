"""How a run ended: what was brought, what the master verified, where to look."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from bentley.domain.addresses import without_password
from bentley.domain.errors import BentleyError
from bentley.services.run import MASTER, Services
from bentley.stages.follow import Chain, follow
from bentley.stages.track import tracking_uri
from bentley.stages.verify import Verification, verify


@dataclass(frozen=True)
class Summary:
    """The end of a run; `held` says whether the master found every check to hold."""

    pipeline_run: str
    held: bool
    failure: str | None
    origin: str
    chain: Chain
    verification: Verification | None
    master: dict[str, Any]
    addresses: dict[str, str]

    @classmethod
    def of(cls, services: Services, run_id: str) -> Summary:
        """Gather the summary of a run whose master has ended."""
        settings = services.settings
        master: dict[str, Any] = {}
        failure = None
        try:
            master = services.patiently(partial(services.verdict, run_id))
            failure = master.get("failed") or None
        except BentleyError as error:
            failure = str(error)
        chain = services.patiently(partial(follow, settings, run_id))
        check = partial(verify, settings, pipeline_run=run_id)
        found = services.patiently(check) if chain.done else None
        base = f"http://localhost:{settings.airflow_port}"
        return cls(
            run_id,
            failure is None and bool(master.get("held")),
            failure,
            settings.origin,
            chain,
            found,
            {name: value for name, value in master.items() if name != "note"},
            {
                "airflow": f"{base}/dags/{MASTER}",
                "assets": f"{base}/assets",
                "mlflow": without_password(tracking_uri(settings)),
                "warehouse": str(settings.data_home / "mansa_bot.db")
                if settings.warehouse_url is None
                else "BENTLEY_WAREHOUSE_URL",
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Make plain values for JSON."""
        return asdict(self)

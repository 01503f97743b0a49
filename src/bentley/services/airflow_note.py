"""Puts a text on the page of an Airflow run."""

from __future__ import annotations

import structlog

from bentley.domain.errors import BentleyError
from bentley.services.airflow_api import AirflowClient
from bentley.settings import Settings

_log = structlog.get_logger(__name__)


def set_note(settings: Settings, dag_id: str, run_id: str, text: str) -> bool:
    """Set the run's note; where Airflow's API refuses, log it: the text is stored elsewhere too."""
    with AirflowClient(settings.airflow_url) as client:
        try:
            client.set_note(dag_id, run_id, text)
        except BentleyError as error:
            _log.warning("the run's note could not be set", error=str(error))
            return False
    return True

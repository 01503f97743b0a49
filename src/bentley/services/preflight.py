"""Finds before any process is started what would stop a run later, and says what to do."""

from __future__ import annotations

from collections.abc import Iterable

from bentley.domain.errors import ConfigurationError
from bentley.services import doctor_data, doctor_machine, doctor_tools, ports
from bentley.services.findings import Finding
from bentley.settings import Settings


def check(settings: Settings) -> None:
    """Look at packages, ports, the databases of Airflow and of our own MLflow, or MLflow's server.

    Nothing is changed. The warehouse is not among these: whoever opens it migrates it.
    Raises ConfigurationError that names every fault and its remedy.
    """
    _refuse(doctor_machine.python())
    wanted = {"Airflow": settings.airflow_port}
    if settings.mlflow_tracking_uri is None:
        wanted["MLflow"] = settings.mlflow_port
    else:
        _refuse(doctor_tools.mlflow(settings))
    ports.check_free(wanted)
    airflow = settings.data_home / "airflow" / "airflow.db"
    if airflow.exists():
        _refuse([doctor_data.airflow_database("metadata", airflow)])
    _refuse(doctor_data.mlflow_database(settings))


def _refuse(findings: Iterable[Finding]) -> None:
    wrong = [f"{one.detail}: {one.remedy}" for one in findings if one.state == "problem"]
    if wrong:
        raise ConfigurationError("\n".join(wrong))

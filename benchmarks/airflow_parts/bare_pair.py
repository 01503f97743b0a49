"""The least that Airflow can be asked: a task that emits an asset, a DAG that waits for it."""

from __future__ import annotations

from airflow.sdk import Asset, dag, task

BARE = Asset(name="bare", uri="x-bench://pair/bare")


@dag(dag_id="bare_producer", schedule=None, catchup=False)
def bare_producer() -> None:
    """Emit."""

    @task(outlets=[BARE])
    def produce() -> None:
        pass

    produce()


@dag(dag_id="bare_consumer", schedule=[BARE], catchup=False)
def bare_consumer() -> None:
    """Start."""

    @task
    def consume() -> None:
        pass

    consume()


bare_producer()
bare_consumer()

"""The end of a pipeline run: verified, reported in a file, in MLflow and in Airflow's note."""

from __future__ import annotations

import re
from typing import Any

from bentley.domain.clock import iso
from bentley.domain.errors import FatalError
from bentley.settings import Settings
from bentley.stages import verify as checks
from bentley.stages.follow import Chain, follow
from bentley.stages.track import tracking_uri
from bentley.stages.verify import Verification, verify
from bentley.tracking import chain_picture
from bentley.tracking.records import RunRecord
from bentley.tracking.runs import Tracker
from bentley.warehouse import ledger
from bentley.warehouse.warehouse import Warehouse

EXPERIMENT = "bentley-orchestration"


def verify_and_report(
    settings: Settings, *, pipeline_run: str, dag_run: str, attempt: int = 1
) -> dict[str, Any]:
    """Verify a pipeline run and write its report, whatever the verification finds.

    Each `attempt` has an MLflow run of its own: what it found is not what the next one finds.

    The caller decides what a check that did not hold means: `held` is in the result.
    """
    started = ledger.now_ms()
    chain = follow(settings, pipeline_run)
    found = verify(settings, pipeline_run=pipeline_run)
    text = report(chain, found)
    picture = chain_picture.chain(
        [(s.dag_id, s.state, s.rows_written, s.seconds) for s in chain.stages],
        [(check.name, check.held, check.detail) for check in found.checks],
        title=f"Pipeline run {pipeline_run}",
        subtitle=f"origin: {found.origin}; exchange time {iso(found.exchange_time)}",
    )
    settings.reports.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.+-]", "_", pipeline_run)
    (settings.reports / f"{stem}.md").write_text(text, encoding="utf-8")
    (settings.reports / f"{stem}.png").write_bytes(picture)
    with Warehouse.open(settings) as warehouse:
        claim = f"{warehouse.name}:master:{stem[:150]}:{attempt}"
    run = Tracker(tracking_uri(settings)).log(
        RunRecord(
            experiment=EXPERIMENT,
            name=stem,
            claim=claim,
            started_ms=started,
            ended_ms=ledger.now_ms(),
            params={"origin": found.origin, "pipeline_run": pipeline_run},
            metrics={
                "checks_held": sum(check.held for check in found.checks),
                "checks_failed": sum(not check.held for check in found.checks),
                "bars": sum(one.rows for one in found.series),
                "bars_processed": sum(one.processed for one in found.series),
                "bars_rejected": sum(one.rejected for one in found.series),
                "gaps": sum(one.gaps for one in found.series),
                "missing_bars": sum(one.missing_bars for one in found.series),
            },
            tags={"bentley.origin": found.origin, "airflow.run": dag_run},
            note=text,
            artifacts={"report.md": text, "report.png": picture},
        )
    )
    return {
        "pipeline_run": pipeline_run,
        "held": found.held,
        "failed": checks.summary(found),
        "report": str(settings.reports / f"{stem}.md"),
        "mlflow": run.url,
        "note": brief(chain, found, run.url),
    }


def require(result: dict[str, Any]) -> None:
    """Raise FatalError naming every check that did not hold."""
    if not result["held"]:
        raise FatalError(result["failed"])


def brief(chain: Chain, found: Verification, url: str) -> str:
    """Write what fits an Airflow note: the verdict, what did not hold, and where the rest is."""
    held = sum(check.held for check in found.checks)
    bars = sum(one.rows for one in found.series)
    verdict = "every check held" if found.held else "a check did not hold"
    lines = [
        f"**{verdict}** ({held} of {len(found.checks)}) · origin: {found.origin} · {bars} bars",
        f"Report: {url}",
        *(f"Batch {run['batch_id']}: {run['url']}" for run in found.mlflow[:2]),
        *(f"FAILED {check.name}: {check.detail}" for check in found.checks if not check.held),
        ", ".join(f"{s.stage} {s.state}, {s.rows_written} written" for s in chain.stages),
    ]
    return "\n\n".join(lines)


def report(chain: Chain, found: Verification) -> str:
    """Write the report as Markdown."""
    verdict = "every check held" if found.held else "a check did not hold"
    lines = [
        f"**{verdict}** · origin: {found.origin} · exchange time {iso(found.exchange_time)}",
        "",
        f"Pipeline run {chain.pipeline_run}",
        "",
        "| stage | state | read | written | rejected | seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {s.dag_id} | {s.state} | {s.rows_read} | {s.rows_written} | {s.rows_rejected} "
        f"| {s.seconds:.1f} |"
        for s in chain.stages
    ]
    lines += ["", "| check | held | seen |", "| --- | --- | --- |"]
    lines += [
        f"| {check.name} | {'yes' if check.held else '**no**'} | {check.detail} |"
        for check in found.checks
    ]
    lines += ["", *checks.table(found), ""]
    lines += [f"MLflow run of batch {run['batch_id']}: {run['url']}" for run in found.mlflow]
    return "\n".join(lines) + "\n"

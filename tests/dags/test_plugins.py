"""What Bentley adds to Airflow, taken alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def ask(script: str) -> str:
    """Run a script with plugins/ on the path, in a process that Airflow may fill."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "plugins"), "HOME": "/tmp"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_an_error_is_retried_by_its_place_in_the_tree():
    decisions = {
        "RetriableError('wait', retry_after=7)": "retry 7.0",
        "RetriableError('wait')": "retry None",
        "ConfigurationError('set it')": "fail None",
        "FatalError('no use')": "fail None",
        "DataError('too many', rejected=1, read=1)": "fail None",
        "ValueError('a bug')": "default None",
    }
    said = ask(
        "from bentley.domain.errors import *\n"
        "from bentley_retry import BentleyRetryPolicy\n"
        f"for raised in ({', '.join(decisions)}):\n"
        "    found = BentleyRetryPolicy().evaluate(raised, 1, 3)\n"
        "    delay = found.retry_delay.total_seconds() if found.retry_delay else None\n"
        "    print(found.action.value, delay)"
    )
    assert dict(zip(decisions, said.splitlines(), strict=True)) == decisions


def test_an_old_address_leads_to_the_page_of_today_and_any_other_is_passed_on():
    today = "307 /dags/x_dag"
    pages = {
        "/dags/x_dag/grid": today,
        "/dags/x_dag/graph": today,
        "/dags/x_dag/grid/": today,
        "/dags/grid": "passed on",
        "/dags/x_dag/calendar": "passed on",
        "/dags/x_dag/details": "passed on",
    }
    said = ask(
        "import asyncio\n"
        "from bentley_ui import OldPages\n"
        "async def send(message): sent.append(message)\n"
        "async def app(scope, receive, send): sent.append('passed on')\n"
        f"for path in {list(pages)}:\n"
        "    sent = []\n"
        "    asyncio.run(OldPages(app)({'type': 'http', 'path': path}, None, send))\n"
        "    first = sent[0]\n"
        "    print(first if first == 'passed on' else "
        "f\"{first['status']} {dict(first['headers'])[b'location'].decode()}\")"
    )
    assert dict(zip(pages, said.splitlines(), strict=True)) == pages


TICKS = """
import asyncio, json, time
import bentley_triggers
from bentley_triggers import {trigger}
async def soon(seconds): await real(seconds / 100)
real, bentley_triggers.asyncio.sleep = asyncio.sleep, None
class Clock:
    sleep = staticmethod(soon)
    to_thread = staticmethod(asyncio.to_thread)
    get_running_loop = staticmethod(asyncio.get_running_loop)
asyncio.sleep = real
bentley_triggers.asyncio = Clock
async def collect(trigger, seconds):
    found = []
    async def gather():
        async for event in trigger.run():
            found.append((time.monotonic(), event.payload))
    try:
        await asyncio.wait_for(gather(), seconds)
    except asyncio.TimeoutError:
        pass
    return found
"""


def test_the_same_news_is_told_less_and_less_often():
    said = ask(
        TICKS.format(trigger="UnconsumedTrigger")
        + "watch = UnconsumedTrigger(['track'], again=10.0)\n"
        "watch._late = lambda: {'batches': [1]}\n"
        "events = asyncio.run(collect(watch, 2.2))\n"
        "waits = [later - sooner for (sooner, _), (later, _) in zip(events, events[1:])]\n"
        "print(json.dumps(waits))"
    )
    waits = json.loads(said)
    assert 3 <= len(waits) <= 4
    assert all(wait >= least for wait, least in zip(waits, (0.1, 0.2, 0.4, 0.8), strict=False))


def test_nothing_is_emitted_for_a_paused_consumer():
    """Its event would be lost to it, and make the other consumers run for nothing."""
    knime, track = "knime_cli_workflow", "mlflow_logging_dag"
    consumers = {(): "process", (knime,): "track", (track,): "process", (knime, track): "None"}
    said = ask(
        "import bentley_triggers, bentley.stages.pending\n"
        "from bentley.services.airflow_answers import Dag\n"
        "from bentley.services.airflow_api import AirflowClient\n"
        "AirflowClient.dag = lambda self, dag_id: Dag(\n"
        "    dag_id=dag_id, is_paused=dag_id in paused, has_import_errors=False)\n"
        "bentley.stages.pending.overdue = lambda *_, **__: {'batches': [1]}\n"
        f"for paused in {list(consumers)}:\n"
        "    late = bentley_triggers.UnconsumedTrigger(['process', 'track'])._late()\n"
        "    print(late and late['consumer'])"
    )
    assert dict(zip(consumers, said.splitlines(), strict=True)) == consumers


def test_a_consumer_is_woken_where_airflow_does_not_say_that_it_is_paused():
    said = ask(
        "import os, bentley_triggers, bentley.stages.pending\n"
        "os.environ['BENTLEY_AIRFLOW_PORT'] = '9'\n"
        "bentley.stages.pending.overdue = lambda *_, **__: {'batches': [1]}\n"
        "print(bentley_triggers.UnconsumedTrigger(['track'])._late()['consumer'])"
    )
    assert said.splitlines()[-1] == "track"


def test_a_chain_that_keeps_moving_still_meets_its_deadline():
    said = ask(
        TICKS.format(trigger="ChainTrigger") + "import itertools, types\n"
        "numbers = itertools.count()\n"
        "watch = ChainTrigger('run', deadline=time.time() + 0.3, stalled=1000.0)\n"
        "watch._look = lambda: types.SimpleNamespace(done=False, moved=next(numbers))\n"
        "print(asyncio.run(collect(watch, 5))[0][1])"
    )
    assert said == "late"


def test_the_form_of_a_run_that_loads_history():
    said = ask(
        "import json\n"
        "from bentley.domain.errors import ConfigurationError\n"
        "from bentley_tasks import history_wanted\n"
        "since, other = {'backfill_since': '2024-01-01'}, {'backfill_symbols': 'BTCUSDT'}\n"
        "for params in ({}, {'backfill_since': None, 'pipeline_run': 'r'}, since,\n"
        "               since | other | {'backfill_until': ''}):\n"
        "    print(json.dumps(history_wanted(params)))\n"
        "try:\n"
        "    history_wanted(other)\n"
        "except ConfigurationError as error:\n"
        "    print(error)"
    )
    assert said.splitlines() == [
        "{}",
        "{}",
        '{"since": "2024-01-01"}',
        '{"since": "2024-01-01", "symbols": "BTCUSDT"}',
        "backfill_symbols is given without backfill_since: from where on is history wanted?",
    ]

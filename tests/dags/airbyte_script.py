"""The sync task by an Airbyte server, in a process that Airflow may fill; prints JSON.

`python airbyte_script.py CASE`: the settings are in the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import types
from importlib import import_module

from airflow.sdk.exceptions import TaskDeferred
from bentley_operators import SyncBars
from bentley_triggers import AirbyteJobTrigger

from bentley.domain.errors import BentleyError

RUN = types.SimpleNamespace(dag_id="airbyte_sync_dag", run_id="r-1", conf={"pipeline_run": "p-1"})
CONTEXT = {"dag_run": RUN, "params": {}}


def start():
    """Execute the task as a worker does; return the task and what it hands over."""
    task = SyncBars(task_id="sync")
    try:
        task.execute(CONTEXT)
    except TaskDeferred as handed_over:
        return task, handed_over
    raise AssertionError("it did not wait in the triggerer")  # noqa: EM101, TRY003


def trigger(handed_over, **more):
    """Make the trigger as a triggerer does: from what was written down of it."""
    path, arguments = handed_over.trigger.serialize()
    module, _, name = path.rpartition(".")
    arguments = json.loads(json.dumps(arguments)) | {"every": 0.02} | more
    return getattr(import_module(module), name)(**arguments)


async def event(waiting):
    async for one in waiting.run():
        return one.payload
    return None


def resume(handed_over, payload):
    """Wake a new task, as another worker does."""
    task = SyncBars(task_id="sync")
    try:
        return getattr(task, handed_over.method_name)(CONTEXT, payload, **handed_over.kwargs)
    except BentleyError as error:
        return {"error": type(error).__name__, "message": str(error)}


def whole():
    _, handed_over = start()
    payload = asyncio.run(event(trigger(handed_over)))
    report = resume(handed_over, payload)
    written = [handed_over.trigger.serialize(), handed_over.kwargs, payload, report]
    return {"event": payload, "report": report, "written": json.dumps(written)}


def late():
    _, handed_over = start()
    payload = asyncio.run(event(trigger(handed_over, deadline=time.time() + 0.2)))
    return {"event": payload, "report": resume(handed_over, payload)}


def killed():
    """What Airflow does with a trigger when somebody clears its task."""
    _, handed_over = start()

    async def cleared():
        waiting = trigger(handed_over)
        following = asyncio.create_task(event(waiting))
        await asyncio.sleep(0.5)
        following.cancel()
        try:
            await following
        except asyncio.CancelledError:
            await waiting.on_kill()

    asyncio.run(cleared())


def restarted():
    """A triggerer ends without `on_kill`; the next one makes the trigger anew."""
    _, handed_over = start()

    async def ends():
        following = asyncio.create_task(event(trigger(handed_over)))
        await asyncio.sleep(0.2)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        return await event(trigger(handed_over))

    payload = asyncio.run(ends())
    return {"event": payload, "report": resume(handed_over, payload)}


def beating():
    """How the event loop of a process without a task fares while the server keeps it waiting."""

    async def beat():
        waiting = AirbyteJobTrigger(
            int(sys.argv[2]), own=False, deadline=time.time() + 60, every=0.02
        )
        following = asyncio.create_task(event(waiting))
        longest, last = 0.0, time.monotonic()
        while not following.done():
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        return longest

    return asyncio.run(beat())


def killed_before_the_answer():
    """Airflow's signal comes while the job is asked for."""
    airbyte_job = import_module("bentley.stages.airbyte_job")
    task, ask = SyncBars(task_id="sync"), airbyte_job.start

    def interrupted(*args, **more):
        task.on_kill()
        return ask(*args, **more)

    airbyte_job.start = interrupted
    with contextlib.suppress(TaskDeferred):
        task.execute(CONTEXT)


def refused():
    """The look was refused for so long that the task is woken; then all is well again."""
    _, handed_over = start()
    try:
        resume(handed_over, "over")
    except TaskDeferred as again:
        same = again.kwargs == handed_over.kwargs and (
            again.trigger.serialize() == handed_over.trigger.serialize()
        )
        payload = asyncio.run(event(trigger(again)))
        return {"same": same, "report": resume(again, payload)}
    return None


def killed_on_the_worker():
    task, _ = start()
    task.on_kill()


print(json.dumps(globals()[sys.argv[1]]()))  # noqa: T201

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tracking_samples import active_runs, record

from bentley.domain.errors import ConfigurationError, FatalError, RetriableError
from bentley.tracking.runs import Tracker

HERE = Path(__file__).parent


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


class Fragile:
    """MLflow's client until call `at`, which dies `before` reaching the server or just after."""

    def __init__(self, client, at, *, before):
        self.client, self.left, self.before = client, at, before
        self.died_in = None

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*args, **kwargs):
            self.left -= 1
            if self.left < 0 and self.before:
                self.died_in = name
                raise Killed
            result = method(*args, **kwargs)
            if self.left < 0:
                self.died_in = name
                raise Killed
            return result

        return call


def whole(client, claim):
    """The one run of a claim, after checking that it is there once, finished and complete."""
    runs = active_runs(client, claim)
    assert [run.info.status for run in runs] == ["FINISHED"]
    run = client.get_run(runs[0].info.run_id)
    assert set(run.data.metrics) == {"rows_read", "freshness_hours", "BTCUSDT/volatility"}
    for key in run.data.metrics:
        assert len(client.get_metric_history(run.info.run_id, key)) == 1
    assert run.data.params == {"symbols": "BTCUSDT ETHUSDT", "interval": "1h"}
    assert run.data.tags["mlflow.note.content"] == "# batch\n\nall of it"
    assert len(run.inputs.dataset_inputs) == 1
    files = [f.path for f in client.list_artifacts(run.info.run_id)]
    pictures = [f.path for f in client.list_artifacts(run.info.run_id, "pictures")]
    assert (files, pictures) == (["pictures", "report.md"], ["pictures/a.png"])
    assert (run.info.start_time, run.info.end_time) == (1_700_000_000_000, 1_700_000_060_000)
    return run


def test_a_run_holds_all_that_the_record_holds(tracker, mlflow_client, tmp_path):
    seen = []
    logged = tracker.log(record("whole:1"), on_created=seen.append)
    run = whole(mlflow_client, "whole:1")
    assert seen == [logged.run_id] == [run.info.run_id]
    assert run.info.run_name == "whole-1"
    assert run.data.tags["bentley.origin"] == "replay"
    page = f"{tracker.uri}/#/experiments/{logged.experiment_id}/runs"
    assert logged.url == f"{page}/{logged.run_id}?workflowType=machine_learning"
    kept = mlflow_client.download_artifacts(logged.run_id, "pictures/a.png", str(tmp_path))
    assert Path(kept).read_bytes() == b"\x89PNG picture"


def test_the_dataset_is_there_with_its_digest_and_without_a_password(tracker, mlflow_client):
    expected = record("dataset:1").dataset
    logged = tracker.log(record("dataset:1"))
    (entry,) = mlflow_client.get_run(logged.run_id).inputs.dataset_inputs
    assert entry.dataset.digest == expected.digest[:36]
    assert json.loads(entry.dataset.source) == {"uri": "mysql://127.0.0.1:3307/mansa_bot"}
    assert json.loads(entry.dataset.profile) == {"num_rows": 2880, "full_digest": expected.digest}
    assert json.loads(entry.dataset.schema)["mlflow_colspec"][1] == {
        "name": "close",
        "type": "double",
    }
    assert tracker.get(logged.run_id).datasets == {"knime_processed": expected.digest[:36]}


def test_a_second_log_of_a_claim_is_the_same_run_and_changes_nothing(tracker, mlflow_client):
    first = tracker.log(record("twice:1"))
    drawn = []
    again = record(
        "twice:1", metrics={"rows_read": 1.0, "new": 2.0}, artifacts={"b.txt": lambda: drawn.append}
    )
    assert tracker.log(again) == first
    assert tracker.log(again, run_id=first.run_id) == first
    assert drawn == []
    assert whole(mlflow_client, "twice:1").data.metrics["rows_read"] == 2880


def test_a_run_killed_at_any_call_is_completed_once(mlflow_uri, mlflow_client):
    died_in = set()
    for before in (True, False):
        for at in range(20):
            claim = f"killed:{before}:{at}"
            fragile = Fragile(mlflow_client, at, before=before)
            dying = Tracker(mlflow_uri)
            dying._edge._client = fragile
            stored = []
            try:
                dying.log(record(claim), on_created=stored.append)
            except Killed:
                died_in.add(fragile.died_in)
            else:
                break
            later = {"rows_read": 2880.0, "freshness_hours": 9.0, "BTCUSDT/volatility": 0.01}
            changed = replace(record(claim).dataset, digest="changed")
            run_id = stored[0] if stored else None
            logged = Tracker(mlflow_uri).log(
                record(claim, metrics=later, dataset=changed), run_id=run_id
            )
            run = whole(mlflow_client, claim)
            assert run.info.run_id == logged.run_id
            assert not stored or stored == [logged.run_id]
        else:
            pytest.fail("log made more calls than this test kills at")
    assert died_in >= {"create_run", "log_batch", "log_inputs", "log_artifacts", "set_terminated"}


@pytest.mark.parametrize("moment", range(6))
def test_a_process_killed_while_it_logs_leaves_one_run(moment, mlflow_uri, tracker, mlflow_client):
    claim = f"sigkill:{moment}"
    script = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from tracking_samples import record\n"
        "from bentley.tracking.runs import Tracker\n"
        f"tracker = Tracker({mlflow_uri!r})\n"
        "tracker.reachable()\n"
        "print('ready', flush=True)\n"
        f"tracker.log(record({claim!r}))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        time.sleep(moment * 0.014)
        child.kill()
    tracker.log(record(claim))
    whole(mlflow_client, claim)


def test_a_failing_picture_leaves_an_unfinished_run_that_is_completed_later(tracker, mlflow_client):
    def broken():
        msg = "no picture"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="no picture"):
        tracker.log(record("picture:1", artifacts={"pictures/a.png": broken}))
    (run,) = active_runs(mlflow_client, "picture:1")
    assert run.info.status == "RUNNING"
    tracker.log(record("picture:1"))
    whole(mlflow_client, "picture:1")


def test_a_create_whose_answer_was_lost_twice_leaves_one_active_run(tracker, mlflow_client):
    tracker.log(record("other:1"))
    experiment = mlflow_client.get_experiment_by_name("bentley-test").experiment_id
    for _ in range(2):
        mlflow_client.create_run(experiment, tags={"bentley.claim": "lost:1"}, start_time=1)
    tracker.log(record("lost:1", started_ms=1, ended_ms=1))
    (run,) = active_runs(mlflow_client, "lost:1")
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize("rival", ["finishes", "creates"])
def test_a_rival_between_the_search_and_the_create_leaves_one_run(mlflow_uri, mlflow_client, rival):
    claim = f"rival:{rival}"

    class Late(Tracker):
        """Its claim is lost just before it makes its run."""

        def _experiment(self, name):
            experiment_id = super()._experiment(name)
            if rival == "finishes":
                Tracker(mlflow_uri).log(record(claim))
            else:
                mlflow_client.create_run(
                    experiment_id, start_time=1_700_000_000_000, tags={"bentley.claim": claim}
                )
            return experiment_id

    stored = []
    logged = Late(mlflow_uri).log(record(claim), on_created=stored.append)
    assert stored == [logged.run_id] == [whole(mlflow_client, claim).info.run_id]
    assert Tracker(mlflow_uri).log(record(claim)) == logged


@pytest.mark.parametrize("meet_at", ["_experiment", "_find"])
def test_two_that_make_a_run_of_one_claim_at_once_keep_one(mlflow_uri, mlflow_client, meet_at):
    """Both have looked and found none; with `_find`, both have made theirs before they look again."""
    Tracker(mlflow_uri).log(record("other:1"))
    for attempt in range(3):
        claim = f"at-once:{meet_at}:{attempt}"
        both = threading.Barrier(2, timeout=60)

        class Met(Tracker):
            looks = 0

            def _experiment(self, name, both=both):
                found = super()._experiment(name)
                if meet_at == "_experiment":
                    both.wait()
                return found

            def _find(self, record, both=both):
                self.looks += 1
                if meet_at == "_find" and self.looks == 2:
                    both.wait()
                found = super()._find(record)
                if meet_at == "_find" and self.looks == 1:
                    both.wait()  # or the second would find the run that the first has made
                return found

        def log(claim=claim, kind=Met):
            try:
                return kind(mlflow_uri).log(record(claim)).run_id
            except FatalError:  # the other one has removed its run
                return None

        with ThreadPoolExecutor(2) as pool:
            ids = {future.result() for future in [pool.submit(log) for _ in range(2)]}
        run = whole(mlflow_client, claim)
        assert ids - {None} == {run.info.run_id}


def test_what_confirm_raises_leaves_the_run_unfinished(tracker, mlflow_client):
    def lost(run_id):
        msg = f"{run_id} is another's"
        raise RetriableError(msg)

    with pytest.raises(RetriableError, match="is another's"):
        tracker.log(record("confirm:1"), confirm=lost)
    assert [run.info.status for run in active_runs(mlflow_client, "confirm:1")] == ["RUNNING"]
    confirmed = []
    logged = tracker.log(record("confirm:1"), confirm=confirmed.append)
    assert confirmed == [logged.run_id]
    whole(mlflow_client, "confirm:1")


def test_a_second_finished_run_of_a_claim_is_removed(tracker, mlflow_client):
    first = tracker.log(record("surplus:1"))
    second = mlflow_client.create_run(
        first.experiment_id, start_time=1_700_000_000_001, tags={"bentley.claim": "surplus:1"}
    )
    mlflow_client.set_terminated(second.info.run_id)
    assert tracker.log(record("surplus:1")) == first
    whole(mlflow_client, "surplus:1")


def test_a_deleted_run_is_made_anew(tracker, mlflow_client):
    first = tracker.log(record("deleted:1"))
    mlflow_client.delete_run(first.run_id)
    assert tracker.get(first.run_id) is None
    stored = []
    second = tracker.log(record("deleted:1"), run_id=first.run_id, on_created=stored.append)
    assert stored == [second.run_id] != [first.run_id]
    whole(mlflow_client, "deleted:1")


def test_a_run_id_of_another_claim_is_not_taken(tracker, mlflow_client):
    other = tracker.log(record("mine:1"))
    logged = tracker.log(record("mine:2"), run_id=other.run_id)
    assert logged.run_id != other.run_id
    whole(mlflow_client, "mine:1")
    whole(mlflow_client, "mine:2")


def test_a_claim_is_told_from_others_that_a_search_brings_up(mlflow_uri, tracker, mlflow_client):
    class Broad(Fragile):
        """Finds every run, as a database that compares loosely may."""

        def search_runs(self, experiment_ids, _filter, **kwargs):
            return self.client.search_runs(experiment_ids, "", **kwargs)

    other = tracker.log(record("case:a"))
    broad = Tracker(mlflow_uri)
    broad._edge._client = Broad(mlflow_client, 100, before=True)
    assert broad.log(record("case:A")).run_id != other.run_id
    whole(mlflow_client, "case:a")
    whole(mlflow_client, "case:A")


def test_more_than_a_call_takes_is_split(tracker):
    many = record(
        "many:1",
        params={f"p{n}": "x" * 6100 for n in range(130)},
        metrics={f"m{n}": float(n) for n in range(2300)},
        tags={f"t{n}": str(n) for n in range(130)},
        note="n" * 9000,
    )
    stored = tracker.get(tracker.log(many).run_id)
    assert len(stored.metrics) == 2300
    assert stored.metrics["m2299"] == 2299
    assert len(stored.params) == 130
    assert stored.params["p129"].endswith("(cut from 6100 characters)")
    assert stored.tags["t129"] == "129"
    assert stored.tags["mlflow.note.content"].endswith("(cut; the whole note is in note.md)")


def test_what_is_no_number_is_named_and_not_logged(tracker):
    metrics = {"good": 1.5, "ratio": float("nan"), "rate": float("inf")}
    stored = tracker.get(tracker.log(record("nan:1", metrics=metrics)).run_id)
    assert stored.metrics == {"good": 1.5}
    assert stored.tags["bentley.metrics_not_finite"] == "ratio=nan, rate=inf"


def test_a_missing_run_is_none(tracker):
    assert tracker.get("0" * 32) is None


def test_a_refused_value_is_fatal_and_the_run_stays_unfinished(tracker, mlflow_client):
    with pytest.raises(FatalError, match=r"log the values .* correct it first"):
        tracker.log(record("refused:1", metrics={"a!b": 1.0}))
    assert [run.info.status for run in active_runs(mlflow_client, "refused:1")] == ["RUNNING"]


def test_a_deleted_experiment_is_named_with_the_way_back(tracker, mlflow_client):
    logged = tracker.log(record("gone:1", experiment="gone"))
    mlflow_client.delete_experiment(logged.experiment_id)
    with pytest.raises(ConfigurationError, match=f"--experiment-id {logged.experiment_id}"):
        tracker.log(record("gone:2", experiment="gone"))


def test_two_that_make_the_experiment_at_once_both_log(mlflow_uri, mlflow_client):
    class Late(Fragile):
        """Looks for the experiment just before the other one makes it."""

        looks = 0

        def get_experiment_by_name(self, name):
            self.looks += 1
            if self.looks == 2:
                self.client.create_experiment(name)
                return None
            return self.client.get_experiment_by_name(name)

    late = Tracker(mlflow_uri)
    late._edge._client = Late(mlflow_client, 100, before=True)
    logged = late.log(record("late:1", experiment="raced"))
    assert len(active_runs(mlflow_client, "late:1", "raced")) == 1
    assert late.get(logged.run_id).finished


def test_threads_share_a_process(mlflow_uri):
    with ThreadPoolExecutor(4) as pool:
        logged = list(
            pool.map(lambda n: Tracker(mlflow_uri).log(record(f"thread:{n}")).run_id, range(8))
        )
    assert len(set(logged)) == 8
    assert threading.active_count() < 50


def test_logging_prints_nothing_and_leaves_the_environment_alone(tracker, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    before = dict(os.environ)
    tracker.log(record("quiet:1"))
    assert dict(os.environ) == before
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_both_names_of_this_machine_open_the_pages(mlflow_uri, host):
    url = mlflow_uri.replace("127.0.0.1", host)
    with httpx.Client(trust_env=False) as client:
        assert "<title>" in client.get(f"{url}/").text
        found = client.post(
            f"{url}/ajax-api/2.0/mlflow/experiments/search",
            json={"max_results": 1},
            headers={"Origin": url},
        )
        assert found.status_code == 200


def test_foreign_pages_and_names_are_refused(mlflow_uri):
    search = f"{mlflow_uri}/ajax-api/2.0/mlflow/experiments/search"
    with httpx.Client(trust_env=False) as client:
        foreign = {"Origin": "http://evil.example"}
        assert client.post(search, json={"max_results": 1}, headers=foreign).status_code == 403
        assert client.get(f"{mlflow_uri}/", headers={"Host": "evil.example"}).status_code == 403


def test_an_account_in_the_address_shows_nowhere(mlflow_uri):
    named = Tracker(mlflow_uri.replace("http://", "http://winston:hu%40sh@"))
    named.reachable()
    logged = named.log(record("account:1"))
    assert "winston" not in logged.url
    with pytest.raises(FatalError) as refused:
        named.log(record("account:2", metrics={"a!b": 1.0}))
    assert "hu@sh" not in str(refused.value) + repr(refused.value.__cause__)


def test_a_server_that_is_gone_is_retriable(mlflow_uri):
    closed = Tracker(mlflow_uri.rpartition(":")[0] + ":9")
    begun = time.monotonic()
    with pytest.raises(RetriableError, match=r"http://127\.0\.0\.1:9 .*MLFLOW_TRACKING_URI"):
        closed.log(record("closed:1"))
    assert time.monotonic() - begun < 10

"""The client of an Airbyte server against a server built from the published contract."""

from __future__ import annotations

import pytest
import stamina

from bentley.airbyte import server as server_module
from bentley.airbyte.server import AirbyteServer, Job
from bentley.domain.errors import ConfigurationError, FatalError, RetriableError
from bentley.settings import load
from contract.airbyte.airbyte_server import CLIENT, CONNECTION, SECRET

STATES = ("pending", "queued", "running", "incomplete", "succeeded", "failed", "cancelled")


@pytest.fixture
def client(airbyte):
    with AirbyteServer(airbyte.url, CONNECTION, CLIENT, SECRET) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_waits():
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


def test_a_sync_is_started_and_watched_through_every_state(airbyte, client):
    airbyte.script = list(STATES)
    job = client.start()
    assert (job.status, job.own, job.ended) == ("pending", True, False)
    seen = [client.job(job.id) for _ in STATES]
    assert [one.status for one in seen] == list(STATES)
    assert [one.ended for one in seen] == [False] * 4 + [True] * 3
    assert airbyte.calls("POST", "/applications/token") == 1


def test_a_connection_that_is_not_there_is_found_by_the_check(airbyte):
    with AirbyteServer(airbyte.url, CONNECTION, CLIENT, SECRET) as client:
        client.check()
    with (
        AirbyteServer(airbyte.url, "another", CLIENT, SECRET) as client,
        pytest.raises(ConfigurationError, match="AIRBYTE_CONNECTION_ID 'another'"),
    ):
        client.check()


def test_a_wish_as_a_date_is_counted_from_the_servers_clock(airbyte, client):
    airbyte.now = 1_700_000_000
    airbyte.fault("POST", "/jobs", 503, headers={"Retry-After": "Tue, 14 Nov 2023 22:15:20 GMT"})
    with pytest.raises(RetriableError) as caught:
        client.start()
    assert caught.value.retry_after == 120


def test_a_state_that_nobody_knows_is_named(airbyte, client):
    airbyte.script = ["hibernating"]
    job = client.start()
    with pytest.raises(FatalError, match="state 'hibernating'"):
        client.job(job.id)


def test_a_token_is_renewed_before_it_expires(airbyte, client):
    airbyte.expires_in = 5  # shorter than we let a token live
    job = client.start()
    client.job(job.id)
    assert airbyte.calls("POST", "/applications/token") == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_refused_is_replaced_once(airbyte, client, status):
    job = client.start()
    if status == 401:
        airbyte.expire_tokens()
    else:
        airbyte.fault("GET", "/jobs", 403, body={"title": "forbidden"})
    assert client.job(job.id).status == "succeeded"
    assert airbyte.calls("POST", "/applications/token") == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_new_token_that_is_refused_is_a_configuration_error(airbyte, client, status):
    for _ in range(2):
        airbyte.fault("POST", "/jobs", status, body={"detail": f"no rights for {SECRET}"})
    with pytest.raises(ConfigurationError, match="AIRBYTE_CLIENT_ID") as caught:
        client.start()
    assert "no rights for ****" in str(caught.value)


def test_wrong_credentials_are_named_and_not_shown(airbyte):
    wrong = "wr0ng-secret"
    with (
        AirbyteServer(airbyte.url, CONNECTION, CLIENT, wrong) as client,
        pytest.raises(ConfigurationError, match="AIRBYTE_CLIENT_SECRET") as caught,
    ):
        client.start()
    assert "forbidden" in str(caught.value)
    assert wrong not in str(caught.value)


def test_missing_credentials_are_named():
    with pytest.raises(ConfigurationError, match="AIRBYTE_CLIENT_ID and AIRBYTE_CLIENT_SECRET"):
        AirbyteServer.of(load(airbyte_connection_id="c-1"))


@pytest.mark.parametrize(("path", "body"), [("", "<html>the UI</html>"), ("/nowhere", {})])
def test_an_address_that_is_no_api_is_named(airbyte, path, body):
    airbyte.fault("POST", "/", 404 if path else 200, body=body)
    with (
        AirbyteServer(airbyte.url + path, CONNECTION, CLIENT, SECRET) as client,
        pytest.raises(ConfigurationError, match="AIRBYTE_API_URL"),
    ):
        client.start()


@pytest.mark.parametrize("status", [404, 400, 422])
def test_an_unknown_connection_is_named(airbyte, client, status):
    airbyte.fault("POST", "/jobs", status, body={"title": "resource-not-found"})
    with pytest.raises(ConfigurationError, match=f"AIRBYTE_CONNECTION_ID '{CONNECTION}'") as caught:
        client.start()
    assert f"{status} (resource-not-found)" in str(caught.value)


def test_a_job_that_is_gone_is_a_configuration_error(client):
    with pytest.raises(ConfigurationError, match="AIRBYTE_CONNECTION_ID"):
        client.job(7)


def test_too_many_requests_hand_on_the_wish_of_the_server(airbyte, client):
    airbyte.fault("POST", "/jobs", 429, headers={"Retry-After": "17"})
    with pytest.raises(RetriableError) as caught:
        client.start()
    assert caught.value.retry_after == 17
    airbyte.fault("POST", "/jobs", 429)
    with pytest.raises(RetriableError) as caught:
        client.start()
    assert caught.value.retry_after is None
    assert airbyte.calls("POST", "/jobs") == 2  # a server that asks for peace gets it


@pytest.mark.parametrize("status", [500, 502, 503, 0])
def test_a_passing_fault_is_tried_again(airbyte, client, status):
    airbyte.fault("POST", "/jobs", status)
    airbyte.fault("POST", "/applications/token", status)
    assert client.start().own


@pytest.mark.parametrize("status", [500, 0])
def test_a_fault_that_lasts_is_retriable(airbyte, client, status):
    for _ in range(server_module._ATTEMPTS):
        airbyte.fault("POST", "/jobs", status)
    with pytest.raises(RetriableError, match=r"answered 500|can't be reached"):
        client.start()
    assert airbyte.calls("POST", "/jobs") == server_module._ATTEMPTS


def test_a_server_that_is_silent_is_not_waited_for(airbyte, client):
    client._http.timeout = 0.2
    job = client.start()
    airbyte.fault("GET", "/jobs", 0, seconds=1.0)
    with pytest.raises(RetriableError, match="can't be reached"):
        client.job(job.id)


@pytest.mark.parametrize("status", ["running", "incomplete", "pending", "queued"])
def test_a_job_that_is_running_already_is_followed(airbyte, client, status):
    airbyte.now = 1_700_000_000.7
    other = airbyte.add_job(status)
    assert client.start() == Job(other, status, own=False, started=1_700_000_000_000)


def test_where_something_else_is_running_the_sync_is_tried_later(airbyte, client):
    airbyte.add_job("running", kind="reset")
    with pytest.raises(RetriableError, match="already running"):
        client.start()


def test_a_job_is_cancelled(airbyte, client):
    airbyte.script = ["running"]
    job = client.start()
    client.cancel(job.id)
    assert client.job(job.id).status == "cancelled"


def test_the_servers_clock_is_told(airbyte, client):
    airbyte.now = 1_700_000_000
    client.check()
    assert client.clock == 1_700_000_000_000


def test_an_answer_that_is_none_is_retriable(airbyte, client):
    client.check()
    airbyte.fault("GET", "/jobs/", 200, body="<html>")
    with pytest.raises(RetriableError, match="no JSON"):
        client.job(1)

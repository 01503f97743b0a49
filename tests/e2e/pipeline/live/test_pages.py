"""What users open: Airflow's pages in a real browser, MLflow's, and the VS Code extension's calls."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

pytestmark = pytest.mark.timeout(300)

MASTER = "bentley_master_orchestration"
CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="module")
def page(live) -> Iterator[Page]:
    """A page signed in as admin/admin."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        if CI:
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.goto(f"{live.settings.airflow_url}/")
        tab.get_by_label("Username").fill("admin")
        tab.get_by_label("Password").fill("admin")
        tab.get_by_role("button", name="Sign in").click()
        tab.wait_for_url("**/")
        yield tab
        browser.close()


def test_the_assets_bear_their_public_names(live, page):
    page.goto(f"{live.settings.airflow_url}/assets")
    for name in ("mysql://mansa_bot/binance_ohlcv", "mysql://mansa_bot/knime_processed"):
        page.get_by_text(name).first.wait_for()


def test_the_old_grid_address_shows_the_dag_of_today(live, page):
    page.goto(f"{live.settings.airflow_url}/dags/{MASTER}/grid")
    page.get_by_text("follow").first.wait_for()
    assert page.url.split("?")[0].endswith(f"/dags/{MASTER}")
    assert page.get_by_text("Page Not Found").count() == 0


def test_the_report_is_the_note_of_the_masters_run(live, page):
    run = next(run for run in live.airflow.runs(MASTER) if run.state == "success")
    assert run.note is not None
    assert "every check held" in run.note
    page.goto(f"{live.settings.airflow_url}/dags/{MASTER}/runs/{run.run_id}")
    page.get_by_text("success", exact=False).first.wait_for()


def test_the_mlflow_run_shows_its_pictures_and_links(live, page):
    found = live.verification().mlflow[-1]
    page.goto(found["url"])
    page.get_by_text("quality_score").first.wait_for()
    assert "airflow.url" in live_tags(live, found["run_id"])


def live_tags(live, run_id: str) -> dict[str, str]:
    answer = httpx.get(
        f"{live.settings.mlflow_tracking_uri}/api/2.0/mlflow/runs/get", params={"run_id": run_id}
    )
    return {tag["key"]: tag["value"] for tag in answer.json()["run"]["data"]["tags"]}


def test_the_calls_of_the_vs_code_extension_are_answered(live):
    base = f"{live.settings.airflow_url}/api/v2"
    run = next(run for run in live.airflow.runs(MASTER) if run.state == "success")
    paths = [
        "/dags?limit=100&offset=0",
        f"/dags/{MASTER}",
        f"/dags/{MASTER}/tasks",
        f"/dags/{MASTER}/dagRuns?order_by=-start_date&limit=10",
        f"/dags/{MASTER}/dagRuns/{run.run_id}",
        f"/dags/{MASTER}/dagRuns/{run.run_id}/taskInstances",
        f"/dags/{MASTER}/dagRuns/{run.run_id}/taskInstances/verify/xcomEntries",
        f"/dags/{MASTER}/dagRuns/{run.run_id}/taskInstances/verify/logs/1",
        f"/dagSources/{MASTER}",
        "/importErrors",
        "/connections",
        "/variables",
        "/providers",
        "/plugins",
        "/monitor/health",
        "/config",
    ]
    with httpx.Client(timeout=30) as client:
        login = {"username": "admin", "password": "admin"}
        token = client.post(f"{live.settings.airflow_url}/auth/token", json=login).json()
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        answers = {path: client.get(base + path, headers=headers).status_code for path in paths}
    assert answers == dict.fromkeys(paths, 200)


def test_the_airflow_command_reaches_the_services_of_its_home(live):
    environment = {**os.environ, **live.settings.environment()}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "bentley"), "airflow", "dags", "trigger", MASTER],
        env=environment | {"MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    run = max(live.airflow.runs(MASTER), key=lambda run: run.run_after)
    assert run.run_type == "manual"
    assert run.run_id.startswith("manual__")
    assert live.ended(MASTER, run.run_id) == "success"

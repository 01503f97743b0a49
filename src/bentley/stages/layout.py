"""Where the artefacts of the tools lie in the checkout: connectors, workflows, DAGs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CONNECTOR = ROOT / "connectors" / "source-binance"
WORKFLOW = ROOT / "workflows" / "ohlcv_processing.knwf"

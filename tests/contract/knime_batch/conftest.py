import json
import sys
import zipfile
from pathlib import Path

import pytest

_ENTRY = (
    '<config key="Var_{n}"><entry key="name" type="xstring" value="{name}"/>'
    '<entry key="class" type="xstring" value="{kind}"/>'
    '<entry key="value" type="{type}" value="{value}"/></config>'
)
_TYPES = {str: ("STRING", "xstring"), int: ("INTEGER", "xint"), float: ("DOUBLE", "xdouble")}


class Installation:
    """A KNIME folder with the stand-in as its launcher."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.launcher = folder / "knime"
        source = Path(__file__).with_name("standin.py").read_text()
        self.launcher.write_text(f"#!{sys.executable}\n{source}")
        self.launcher.chmod(0o755)
        self.behave()

    def behave(self, **behaviour) -> None:
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))

    @property
    def seen(self) -> dict:
        return json.loads((self.folder / "seen.json").read_text())

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()


def workflow_xml(variables: dict) -> str:
    entries = [
        _ENTRY.format(n=n, name=name, kind=_TYPES[type(v)][0], type=_TYPES[type(v)][1], value=v)
        for n, (name, v) in enumerate(variables.items())
    ]
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<config xmlns="http://www.knime.org/2008/09/XMLConfig" key="workflow.knime">'
        '<entry key="version" type="xstring" value="5.1.0"/>'
        f'<config key="workflow_variables">{"".join(entries)}</config></config>'
    )


@pytest.fixture
def knime(tmp_path):
    return Installation(tmp_path / "knime_5")


@pytest.fixture
def folder(tmp_path):
    """A workflow as a folder, which defines four variables."""
    workflow = tmp_path / "flows" / "ohlcv"
    workflow.mkdir(parents=True)
    defined = {"jdbc_url": "", "batch_id": "", "since": 0, "share": 0.5}
    (workflow / "workflow.knime").write_text(workflow_xml(defined))
    return workflow


@pytest.fixture
def knwf(folder, tmp_path):
    """The same workflow as an archive."""
    archive = tmp_path / "ohlcv.knwf"
    with zipfile.ZipFile(archive, "w") as members:
        members.write(folder / "workflow.knime", "ohlcv/workflow.knime")
    return archive


@pytest.fixture
def runs(tmp_path):
    """Where the private folders of runs are made."""
    return tmp_path / "runs"

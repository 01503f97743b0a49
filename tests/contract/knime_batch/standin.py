"""A launcher that behaves as facts about KNIME's batch application say, for tests of what calls it.

`behaviour.json` beside the launcher says how it shall fail; `seen.json` is what it was given.
It shares no code with Bentley: arguments are split here by the published rules, read anew.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

HOME = Path(__file__).resolve().parent
USAGE = "Usage: The following options are available:\n -nosave           => do not save"
FLAGS = {"-nosave", "-reset", "-failonloaderror", "-updateLinks", "-noexecute"}
LAUNCHER_FLAGS = {
    "-nosplash",
    "-consoleLog",
    "--launcher.suppressErrors",
    "--launcher.appendVmargs",
}
LAUNCHER_VALUES = {"-data", "-application", "--launcher.ini"}


class RefusedError(Exception):
    pass


def refuse(*what):
    raise RefusedError(": ".join(map(str, what)))


def split(argument):
    """Commas separate, quotes of both kinds group, a backslash in quotes escapes (n, t, itself)."""
    tokens, token, at = [], "", 0
    while at < len(argument):
        sign = argument[at]
        at += 1
        if sign == ",":
            tokens.append(token)
            token = ""
        elif sign in "\"'":
            while at < len(argument) and argument[at] != sign:
                if argument[at] == "\n":
                    refuse("New line in quoted string", argument)
                if argument[at] == "\\" and at + 1 < len(argument):
                    at += 1
                    token += {"n": "\n", "t": "\t"}.get(argument[at], argument[at])
                else:
                    token += argument[at]
                at += 1
            at += 1
        else:
            token += sign
    return [*tokens, token] if token else tokens


def variable(text):
    parts = split(text)
    if len(parts) != 3:
        refuse("Couldn't parse -workflow.variable argument", text)
    name, value, kind = parts
    readers = {"String": str, "int": int, "double": float}
    if kind not in readers:
        refuse("Invalid type for workflow variable", name, kind)
    return name, readers[kind](value)


def parse(argv):
    at = argv.index("-vmargs") if "-vmargs" in argv else len(argv)
    options = {"variables": {}, "flags": [], "vm": argv[at + 1 :]}
    rest = iter(argv[:at])
    for argument in rest:
        key, _, value = argument.partition("=")
        if argument in LAUNCHER_FLAGS | FLAGS:
            options["flags"].append(argument)
        elif argument in LAUNCHER_VALUES:
            options[argument] = next(rest)
        elif key == "-workflow.variable":
            name, read = variable(value)
            options["variables"][name] = read
        elif key in {"-workflowDir", "-workflowFile"}:
            options["workflow"] = existing(key, Path(value))
        else:
            refuse("Unknown option", key)
    if "workflow" not in options:
        refuse("No workflow file or directory given", argv)
    return options


def existing(key, path):
    if not (path.is_dir() if key == "-workflowDir" else path.is_file()):
        refuse("not there", key, path)
    return str(path)


def stored_variables(folder):
    tree = ET.parse(Path(folder) / "workflow.knime")
    found = {}
    for config in tree.getroot().iter():
        entries = {e.get("key"): e for e in config if e.tag.endswith("entry")}
        if {"name", "class", "value"} <= set(entries):
            found[entries["name"].get("value")] = entries["value"].get("value")
    return found


def write(text, stream=sys.stdout):
    stream.write(f"{text}\n")
    stream.flush()


def say(level, text):
    write(f"{level}\t main BatchExecutor\t {text}")


def main(argv):
    behaviour = json.loads((HOME / "behaviour.json").read_text())
    if behaviour.get("drop_arguments"):
        argv = []
    if "exit_at_start" in behaviour:
        write(behaviour.get("text", ""), sys.stderr)
        return behaviour["exit_at_start"]
    if not argv:
        write(USAGE, sys.stderr)
        return 0
    try:
        options = parse(argv)
    except (RefusedError, ValueError) as error:
        say("ERROR", error)
        return 2
    workflow, workspace = Path(options["workflow"]), Path(options["-data"])
    stored = stored_variables(workflow)
    seen = {
        "argv": argv,
        "options": options,
        "stored": stored,
        "environment": dict(os.environ),
        "modes": {
            str(p): oct(p.stat().st_mode & 0o777)
            for p in (workspace.parent, workflow / "workflow.knime")
        },
        "stdin": sys.stdin.read(),
        "pid": os.getpid(),
    }
    (HOME / "seen.json").write_text(json.dumps(seen))
    return run(behaviour, options, stored, workflow, workspace)


def run(behaviour, options, stored, workflow, workspace):
    say("INFO", f"===== Executing workflow {workflow} =====")
    for line in behaviour.get("lines", []):
        write(line.replace("{url}", stored.get("jdbc_url", "")))
    if (workflow / ".knimeLock").exists():
        say("ERROR", "Workflow is locked by another KNIME instance")
        return 3
    if unknown := set(options["variables"]) - set(stored):
        say("WARN", f"The workflow variable is potentially unused (not defined): {unknown}")
    if behaviour.get("missing_credential"):
        prompt()
    if "flood" in behaviour:
        write("x" * behaviour["flood"] + stored["jdbc_url"])
    misbehave(behaviour)
    return hang(behaviour, workspace) if "seconds" in behaviour else finish(behaviour)


def prompt():
    if sys.stdin.isatty():
        input("Password:")
    say("ERROR", "No console for credential prompt available")


def misbehave(behaviour):
    if "signal" in behaviour:
        os.kill(os.getpid(), getattr(signal, behaviour["signal"]))
    if "grandchild" in behaviour:
        grandchildren(behaviour["grandchild"])


def finish(behaviour):
    code = behaviour.get("exit", 0)
    if code:
        say("INFO", "========= Workflow did not execute sucessfully ============")
    elif not behaviour.get("no_landing"):
        (HOME / "landing.txt").write_text("rows")
    return code


def grandchildren(kind):
    """A helper in its own session, whose parent dies at once, and which ignores SIGTERM."""
    sleep = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"open({str(HOME / 'grandchild.pid')!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    )
    if kind == "orphan":
        command = (
            "import subprocess, sys;"
            f"subprocess.Popen([sys.executable, '-c', {sleep!r}], start_new_session=True)"
        )
        subprocess.run([sys.executable, "-c", command], check=True)
    else:
        subprocess.Popen([sys.executable, "-c", sleep], start_new_session=True)
    while not (HOME / "grandchild.pid").exists() or not (HOME / "grandchild.pid").read_text():
        time.sleep(0.02)


def hang(behaviour, workspace):
    if behaviour.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = time.monotonic() + behaviour["seconds"]
    (HOME / "hanging").touch()
    while time.monotonic() < end:
        if behaviour.get("heeds_cancel") and (workspace / ".cancel").exists():
            (workspace / ".cancel").unlink()
            (HOME / "cancelled").touch()
            say("WARN", "Workflow execution canceled")
            return 4
        time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

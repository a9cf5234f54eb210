"""`kill -9` before, in the middle of and after every step on the disk: a version is there whole or not at all.

One child process imports the store and forks a victim for every step. A victim runs one operation with the functions of
`os` that change the disk replaced by ones that count, and kills itself at its step.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tunechat.serve.adapters.staging import Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.contract.base import BaseManifest

from .conftest import edit_config

DRIVER = """
import json, os, shutil, signal, sys
from pathlib import Path
import msgspec
from tunechat.serve.adapters.staging import Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.contract.base import BaseManifest
from tunechat.serve.contract.errors import TunechatError

seed, folder, work, operation = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
base = msgspec.json.decode(Path(sys.argv[5]).read_bytes(), type=BaseManifest)
STEPS = ("open", "write", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "chmod")

def changed():
    # Other content: a trainer that goes on after it was killed may end a little elsewhere.
    target = work / "changed"
    if not target.exists():
        shutil.copytree(folder, target)
        config = json.loads((target / "adapter_config.json").read_text()) | {"lora_alpha": 99}
        (target / "adapter_config.json").write_text(json.dumps(config))
    return target

def run(store, content=folder):
    if operation == "labelled":
        store.publish("tuned", content, Intake(base), owner="A", label="job")
        assert store.of("tuned").owner == "A" and list(store.of("tuned").labels) == ["job"]
    elif operation == "labelled again":
        store.publish("support", content, Intake(base), label="job")
        assert store.of("support").labels == {"job": 3} or store.of("support").labels == {"job": 4}
    elif operation == "publish":
        store.publish("support", folder, Intake(base))
    elif operation == "first":
        store.publish("fresh", folder, Intake(base))
    elif operation == "rollback":
        store.rollback("support")
    else:
        store.remove("support@1")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def arm(at, when):
    count = 0
    def wrap(name, real):
        def step(*args, **kwargs):
            nonlocal count
            count += 1
            if count - 1 != at:
                return real(*args, **kwargs)
            if when == "middle" and name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            elif when == "after":
                real(*args, **kwargs)
            die()
        return step
    for name in STEPS:
        setattr(os, name, wrap(name, getattr(os, name)))

def states(store):
    found = {}
    for stored in store.all():
        for version in stored.versions:
            store.verify(version.ref.id)
        assert stored.name != "tuned" or stored.owner == "A"
        found[stored.name] = [stored.current, [version.number for version in stored.versions]]
    return found

results = []
# After one step is before the next: with labels, where the order of steps is what counts, one way of dying is enough.
for when in ("before",) if operation.startswith("labelled") else ("before", "middle", "after"):
    at = 0
    while True:
        root = work / f"{when}-{at}"
        shutil.copytree(seed, root)
        pid = os.fork()
        if pid == 0:
            arm(at, when)
            try:
                run(AdapterStore(root))
            except BaseException:
                os._exit(3)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        store = AdapterStore(root)
        killed = states(store)
        try:
            run(store, changed())
        except TunechatError as error:
            again = error.code
        else:
            again = states(store)
        store.sweep()
        left = [str(path) for path in root.rglob(".tmp-*")]
        results.append([when, at, status, killed, again, left])
        shutil.rmtree(root)
        at += 1
        if status != -signal.SIGKILL:
            break
print(json.dumps(results))
"""

OLD = [2, [1, 2]]


@pytest.fixture(scope="module")
def seed(plain: Path, base: BaseManifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two versions of `support`."""
    work = tmp_path_factory.mktemp("seed")
    for alpha in (1, 2):
        shutil.copytree(plain, work / str(alpha))
        edit_config(work / str(alpha), lora_alpha=alpha)
        AdapterStore(work / "store").publish("support", work / str(alpha), Intake(base))
    return work / "store"


@pytest.mark.parametrize(
    ("operation", "name", "killed", "again"),
    [
        ("publish", "support", [OLD, [2, [1, 2, 3]], [3, [1, 2, 3]]], [[3, [1, 2, 3]]]),
        ("first", "fresh", [None, [None, [1]], [1, [1]]], [[1, [1]]]),
        # With a label there is one version in the end, though the second attempt brings other content.
        ("labelled", "tuned", [None, [None, [1]], [1, [1]]], [[1, [1]], [2, [2]]]),
        ("labelled again", "support", [OLD, [2, [1, 2, 3]], [3, [1, 2, 3]]], [[3, [1, 2, 3]], [4, [1, 2, 4]]]),
        ("rollback", "support", [OLD, [1, [1, 2]]], [[1, [1, 2]], "conflict"]),
        ("remove", "support", [OLD, [2, [2]]], [[2, [2]], "model_not_found"]),
    ],
)
def test_killed_at_every_step(
    seed: Path,
    plain: Path,
    base: BaseManifest,
    tmp_path: Path,
    operation: str,
    name: str,
    killed: list[object],
    again: list[object],
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "base.json").write_bytes(msgspec.json.encode(base))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, seed, plain, tmp_path / "work", operation, tmp_path / "base.json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [status for _, _, status, _, _, _ in results].count(-9) >= 15
    assert all(status in {0, -9} for _, _, status, _, _, _ in results)
    seen = []
    for when, at, status, found, then, left in results:
        step = f"{when} step {at}"
        assert found.get(name) in killed, step
        assert status != 0 or found[name] == killed[-1], step
        assert (then if isinstance(then, str) else then[name]) in again, step
        assert left == [], step
        seen.append(found.get(name))
    assert all(state in seen for state in (killed[0], killed[-1]))

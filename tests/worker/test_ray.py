"""A real Ray cluster of three nodes on this machine: the same bytes as without it, whatever is killed or stopped."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import LONGER, SHORT, Building, await_clearing, contents, inline, kill_a_worker, many, patiently, workers

pytestmark = pytest.mark.cluster

LOOPBACK = "127.0.0.1"


class Nodes:
    """A head without cores and nodes of two, of which one can be killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster: Any = Cluster(initialize_head=True, head_node_args={
            "num_cpus": 0, "node_ip_address": LOOPBACK, "include_dashboard": False})
        self.nodes = [self.more() for _ in range(2)]
        self.options = ("--executor", "ray", "--set", f"executor.address={self.cluster.address}")

    def more(self) -> Any:
        """Start another node."""
        return self.cluster.add_node(num_cpus=2, node_ip_address=LOOPBACK)

    def lose(self) -> None:
        """Kill a node and start another one in its place."""
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)
        self.nodes.append(self.more())


@pytest.fixture(scope="module")
def ray() -> Iterator[Nodes]:
    if not importlib.util.find_spec("ray"):
        pytest.skip("no Ray can be started here: it is not installed (`pip install 'mtrun[ray]'`)")
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
    nodes = Nodes()
    yield nodes
    nodes.cluster.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What four longer leaves come to."""
    return contents(inline(tmp_path_factory.mktemp("inline"), 4, LONGER))


@pytest.mark.parametrize(("leaves", "shared"), [(50, True), (6, False)], ids=["shared", "apart"])
def test_short_leaves_are_those_of_inline(ray: Nodes, tmp_path: Path, leaves: int, shared: bool) -> None:
    root, far = many(tmp_path / "ray", leaves), tmp_path / "far"
    began = time.monotonic()
    build = Building(root, *ray.options, *([] if shared else ["--set", f"executor.folder={far}"]))
    assert build.end() == 0, build.error()
    assert contents(root) == contents(inline(tmp_path / "inline", leaves))
    print(f"\n{leaves} leaves as tasks, 4 at a time, in {time.monotonic() - began:.0f} s")
    await_clearing(root)
    await_clearing(far)
    assert not [*far.glob("registry/[0-9a-f]*")], "nothing is left over anywhere"


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])
def test_a_killed_worker_is_started_again(ray: Nodes, tmp_path: Path, whole: dict[str, bytes], shared: bool) -> None:
    root = many(tmp_path / "ray", 4, LONGER)
    place = root if shared else tmp_path / "far"
    build = Building(root, *ray.options, *([] if shared else ["--set", f"executor.folder={place}"]))
    id = kill_a_worker(place)
    assert build.end() == 0, build.error()
    (retried,) = [event for event in build.seen if event["event"] == "retried"]
    assert retried["id"] == id and retried["reason"] in ("signal 9 (Killed)", "exit code 137")
    assert contents(root) == whole


def test_a_lost_node_costs_its_running_leaves_only(ray: Nodes, tmp_path: Path, whole: dict[str, bytes]) -> None:
    root = many(tmp_path, 4, LONGER)
    build = Building(root, *ray.options)
    going = set[str]()
    while len(going) < 4:
        going.add(build.until("progress")["id"])
    ray.lose()
    assert build.end() == 0, build.error()
    retried = [event for event in build.seen if event["event"] == "retried"]
    assert 1 <= len(retried) <= 2 and all("node was lost" in event["reason"] for event in retried)
    assert contents(root) == whole


def test_an_interrupt_leaves_no_worker(ray: Nodes, tmp_path: Path, whole: dict[str, bytes]) -> None:
    root = many(tmp_path, 4, LONGER)
    build = Building(root, *ray.options, "-j", "2")
    build.until("progress", lambda event: event["step"] > 5)
    began = time.monotonic()
    build.process.send_signal(signal.SIGINT)
    assert build.end() == 130
    print(f"\nCtrl-C took {time.monotonic() - began:.1f} s")
    for _ in patiently("workers that go on"):
        if not workers(root):
            break
    assert [*root.glob("registry/.attempts/*/checkpoint.safetensors")]
    again = Building(root, *ray.options)
    assert again.end() == 0, again.error()
    assert contents(root) == whole


def test_two_builds_at_once_train_each_leaf_once(ray: Nodes, tmp_path: Path) -> None:
    root = many(tmp_path / "ray", 4)
    builds = [Building(root, *ray.options) for _ in range(2)]
    assert [build.end() for build in builds] == [0, 0]
    assert sum(build.count("started") for build in builds) == sum(build.count("trained") for build in builds) == 4
    assert contents(root) == contents(inline(tmp_path / "inline", 4))


def test_a_leaf_that_fails_on_a_node_apart_says_why(ray: Nodes, tmp_path: Path) -> None:
    root = many(tmp_path / "ray", 1, SHORT + "[optimizer]\nlr = 1e30\n")
    build = Building(root, *ray.options, "--set", f"executor.folder={tmp_path / 'far'}")
    assert build.end() == 1
    (failed,) = [event for event in build.seen if event["event"] == "failed"]
    assert "the loss of" in failed["problems"][0] and failed["megabytes"] > 100 and failed["host"]
    assert "the loss of" in Path(failed["log"]).read_text()

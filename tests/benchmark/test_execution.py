"""Grids that are killed, limited in time, or done by several processes end as those that run in peace."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from longtail import folder, session
from longtail.benchmark import execution, grid, job, pool
from longtail.benchmark.execution import execute, taken_over
from longtail.benchmark.job import Job, Machine
from longtail.benchmark.table import aggregate, to_csv
from longtail.config import read_config, write_config
from longtail.errors import UsageError
from longtail.training.loop import InterruptedRunError
from longtail.training.runtime import Runtime

PLAIN = Machine("cpu", 1, "off", Runtime())
NAMES = ("ce", "tau-norm", "bsce")


def plan(digits, out: Path, names=NAMES, seeds=range(4), epochs=3):
    return grid.plan(digits, names, seeds, out, protocol="quick", precision="fp32", options={"epochs": epochs})


def table(outcomes) -> str:
    return to_csv(aggregate(outcome.metrics for outcome in outcomes if outcome.metrics is not None))


@pytest.fixture(scope="module")
def in_peace(digits, tmp_path_factory) -> str:
    """The table of the grid of 12 runs that nobody disturbs."""
    return table(execute(plan(digits, tmp_path_factory.mktemp("peace")), digits, machine=PLAIN))


def lines_of_history(out: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in out.glob("*/history.jsonl"))


def killed_at(lines: int, out: Path, work) -> None:
    """Do the work in a child process, and kill that a moment after its runs have so many epochs together."""
    child = os.fork()
    if child == 0:  # torch has one thread here, so that a fork is safe
        try:
            work()
        finally:
            os._exit(1)
    give_up = time.monotonic() + 100
    while lines_of_history(out) < lines and time.monotonic() < give_up:
        time.sleep(0.005)
    time.sleep(random.Random(lines).uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the work ended before it was killed"


def check_epochs(cells) -> None:
    """No epoch of a run is missing or stands twice."""
    for cell in cells:
        epochs = [json.loads(line)["epoch"] for line in (cell.folder / "history.jsonl").read_text().splitlines()]
        assert epochs == list(range(1, len(epochs) + 1))
        assert len(epochs) == 3


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_grid_that_is_killed_five_times_ends_as_one_in_peace(digits, tmp_path, in_peace, monkeypatch):
    monkeypatch.setattr("longtail.folder.SAVE_SECONDS", 0.0)
    cells = plan(digits, tmp_path)
    whims, lines, before = random.Random(6), 0, {}
    for _ in range(5):
        lines += whims.randint(2, 7)
        killed_at(lines, tmp_path, lambda: list(execute(cells, digits, machine=PLAIN)))
        now = {cell.folder: (cell.folder / "metrics.json").stat().st_mtime_ns for cell in cells if cell.finished}
        assert before.items() <= now.items()  # what is finished is not touched again
        before = now
    assert 0 < len(before) < len(cells)
    outcomes = list(execute(cells, digits, machine=PLAIN))
    assert [outcome.status for outcome in outcomes].count("kept") == len(before)
    assert table(outcomes) == in_peace
    check_epochs(cells)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_give_the_same_table_though_their_parent_was_killed(digits, tmp_path, in_peace):
    cells = plan(digits, tmp_path)
    side_by_side = {"machine": PLAIN, "lanes": pool.processes(2)}
    killed_at(4, tmp_path, lambda: list(execute(cells, digits, **side_by_side)))
    outcomes = list(execute(cells, digits, **side_by_side))  # at once: the orphans are still at their last step
    assert {outcome.status for outcome in outcomes} <= {"done", "kept"}
    assert len({outcome.cell.folder for outcome in outcomes}) == len(outcomes) == 12
    assert table(sorted(outcomes, key=lambda o: cells.index(o.cell))) == in_peace
    check_epochs(cells)
    assert grid.known_runtime(cells) == PLAIN.runtime


def test_a_process_that_dies_takes_one_run_with_it(digits, tmp_path):
    long, short = [*plan(digits, tmp_path, ["ce"], [0], epochs=9999), *plan(digits, tmp_path, ["ce"], [1], epochs=1)]
    made = []

    def lanes(machine):
        made.append(pool.Processes(machine, 1))
        return made[0]

    over = threading.Event()

    def kill_it():
        while not over.wait(0.01):
            if lines_of_history(tmp_path):
                os.kill(made[0]._lanes[0]._process.pid, signal.SIGKILL)
                return

    thread = threading.Thread(target=kill_it)
    thread.start()
    try:
        failed, done = execute([long, short], digits, machine=PLAIN, lanes=lanes)
    finally:
        over.set()
        thread.join()
    assert (failed.status, failed.cell) == ("failed", long)
    assert "SIGKILL" in failed.reason
    assert done.status == "done"


class Imagined:
    """Lanes that do each job in this process, the last one first."""

    def __init__(self, machine, number, order):
        self.number, self.order, self.jobs = number, order, []

    def free(self):
        return len(self.jobs) < self.number

    def start(self, job):
        assert job.machine.runtime is not None
        self.order.append(job.cell.name)
        self.jobs.append(job)

    def wait(self):
        return [job.run_job(self.jobs.pop())]

    def stop(self):
        self.order.append("stop")

    def close(self):
        self.order.append("close")


def imagined(order, number=3):
    return lambda machine: Imagined(machine, number, order)


def test_first_stages_are_awaited_and_a_failed_one_is_trained_by_each(digits, tmp_path, monkeypatch):
    train, shared = session.train, []

    def fails(data, method, **keywords):
        if (method, keywords["seed"]) == ("ce", 0):
            raise RuntimeError("no memory")
        shared.append((method, keywords["seed"], keywords["stage1"] is not None))
        return train(data, method, **keywords)

    monkeypatch.setattr(session, "train", fails)
    order: list[str] = []
    cells = plan(digits, tmp_path, ["tau-norm"], [0, 1], epochs=1)
    outcomes = list(execute(cells, digits, machine=PLAIN, lanes=imagined(order)))
    assert order[:2] == ["ce seed 0", "ce seed 1"]
    assert order[-1] == "close"
    assert sorted(shared) == [("ce", 1, False), ("tau-norm", 0, False), ("tau-norm", 1, True)]
    assert sorted(outcome.status for outcome in outcomes) == ["done", "done", "done", "failed"]


def test_side_by_side_shares_one_measurement_that_survives(digits, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(job, "settle", lambda *args, **keywords: calls.append(keywords) or Runtime(threads=1))
    cells = grid.plan(digits, ["bsce"], [0], tmp_path, protocol="quick", options={"epochs": 1})
    _, bsce = execute(cells, digits, lanes=imagined([]))
    assert len(calls) == 1
    (bsce.cell.folder / "metrics.json").unlink()
    assert [o.status for o in execute(cells, digits, lanes=imagined([]))] == ["kept", "done"]
    assert len(calls) == 1


@pytest.mark.parametrize("lanes", [None, imagined([])], ids=["in-turn", "side-by-side"])
def test_a_later_call_decides_on_threads_and_compilation_again_and_keeps_the_precision(digits, tmp_path, lanes):
    """A grid that was begun alone on two threads goes on as two jobs of one thread each."""
    cells = plan(digits, tmp_path, ["ce", "bsce"], [0], epochs=1)
    list(execute(cells[:1], digits, machine=Machine("cpu", 2, "off", Runtime("cpu", "fp32", 2))))
    _, later = execute(cells, digits, machine=Machine("cpu", 1, "off"), lanes=lanes)
    assert (later.metrics["threads"], later.metrics["precision"]) == (1, "fp32")


def test_choices_of_another_kind_of_device_are_not_taken_over(digits, tmp_path, monkeypatch):
    cells = plan(digits, tmp_path, ["ce"], [0], epochs=1)
    list(execute(cells, digits, machine=PLAIN))
    assert taken_over(cells, Machine()) == PLAIN.runtime
    assert taken_over(cells, Machine("cpu", "2", "on")) == Runtime("cpu", "fp32", 2, compile=True)
    with pytest.raises(UsageError, match="threads is 'many'"):
        taken_over(cells, Machine("cpu", "many"))
    monkeypatch.setattr(execution, "pick_device", torch.device)
    assert taken_over(cells, Machine("cuda:0")) is None
    assert taken_over([], Machine("cpu")) is None


def test_a_kept_run_of_another_kind_of_device_settles_nothing(digits, tmp_path):
    cells = plan(digits, tmp_path, ["ce", "bsce"], [0], epochs=1)
    list(execute(cells[:1], digits, machine=PLAIN))
    config, more = read_config(cells[0].folder)
    write_config(cells[0].folder, config, **{**more, "runtime": {**more["runtime"], "device": "cuda:0", "threads": 7}})
    kept, later = execute(cells, digits, machine=Machine("cpu", 1, "off"))
    assert (kept.status, later.status, later.reason) == ("kept", "done", "")
    assert (later.metrics["device"], later.metrics["threads"]) == ("cpu", 1)


def test_processes_use_their_share_of_the_threads(digits, tmp_path, monkeypatch):
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    (cell,) = plan(digits, tmp_path, ["ce"], [0], epochs=1)
    job.work(Job(cell, Machine(runtime=Runtime(threads=3))))
    assert set_to[0] == 3


def test_the_time_that_a_process_needs_to_start_counts(digits, tmp_path):
    (cell,) = plan(digits, tmp_path, ["ce"], [0], epochs=9999)
    late = Job(cell, PLAIN, until=time.time() - 1)
    assert late.seconds() < 0
    assert job.run_job(late, digits).status == "stopped"
    assert Job(cell, PLAIN).seconds() is None


def test_lanes_are_all_told_to_stop_before_any_is_waited_for(monkeypatch):
    order = []

    class Lane:
        job = object()

        def __init__(self, name):
            self.name = name

        def tell_to_stop(self):
            order.append(("told", self.name))
            return True

        def signs(self):
            order.append(("waited for", self.name))
            return []

        def hang_up(self):
            order.append(("cut", self.name))

        def end(self):
            order.append(("ended", self.name))

    monkeypatch.setattr(pool, "_Lane", Lane)
    monkeypatch.setattr(pool, "devices", lambda device, jobs: ["a", "b"])
    lanes = pool.Processes(PLAIN, 2)
    lanes.stop()
    lanes.close()
    assert [what for what, _ in order] == ["told"] * 2 + ["waited for"] * 2 + ["cut"] * 2 + ["ended"] * 2


def test_ctrl_c_stops_all_lanes(digits, tmp_path):
    order: list[str] = []

    class Interrupted(Imagined):
        def wait(self):
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        list(execute(plan(digits, tmp_path), digits, machine=PLAIN, lanes=lambda m: Interrupted(m, 2, order)))
    assert order == ["ce seed 0", "bsce seed 0", "stop", "close"]


@pytest.mark.parametrize("lanes", [None, imagined([])], ids=["in-turn", "side-by-side"])
def test_a_time_limit_stops_inside_a_run_and_between_runs(digits, tmp_path, lanes):
    ce = plan(digits, tmp_path, ["ce"], [0], epochs=1)
    long = plan(digits, tmp_path, ["ce"], [1, 2], epochs=9999)
    (done,) = execute(ce, digits, machine=PLAIN)
    assert done.status == "done"
    outcomes = list(execute([*ce, *long], digits, machine=PLAIN, lanes=lanes, seconds=1.0))
    assert [outcome.status for outcome in outcomes] == ["kept"]
    assert (long[0].folder / "state.pt").exists()
    assert not long[0].finished
    first = torch.load(long[0].folder / "state.pt", weights_only=True)["position"]
    assert list(execute(long[:1], digits, machine=PLAIN, lanes=lanes, seconds=1.0)) == []
    then = torch.load(long[0].folder / "state.pt", weights_only=True)["position"]
    assert (then["epoch"], then["step"]) > (first["epoch"], first["step"])  # it went on
    assert list(execute(long[1:], digits, machine=PLAIN, lanes=lanes, seconds=0)) == []
    assert not long[1].begun or lanes is not None


def test_a_run_that_another_process_does_fails_and_is_done_later(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "LOCK_SECONDS", 0.3)
    (cell,) = plan(digits, tmp_path, ["ce"], [0], epochs=1)
    with ThreadPoolExecutor() as other, folder.alone(cell.folder):
        (outcome,) = other.submit(lambda: list(execute([cell], digits, machine=PLAIN))).result()
    assert outcome.status == "failed"
    assert f"another process trains in {cell.folder}; wait" in outcome.reason
    monkeypatch.setattr(job, "LOCK_SECONDS", 30.0)
    with ThreadPoolExecutor() as other:
        with folder.alone(cell.folder):
            waiting = other.submit(lambda: list(execute([cell], digits, machine=PLAIN)))
            time.sleep(0.2)
        assert [outcome.status for outcome in waiting.result()] == ["done"]


def test_devices_take_turns(monkeypatch):
    assert pool.devices("cpu", 2) == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pool.devices("cuda", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert pool.devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [pool.threads_of_each(jobs) for jobs in (1, 3, 20)] == [8, 2, 1]


@pytest.mark.extras
def test_a_local_ray_of_two_workers_gives_the_same_table(digits, tmp_path, in_peace):
    pytest.importorskip("ray")
    from longtail.benchmark import cluster

    cells = plan(digits, tmp_path)
    outcomes = list(execute(cells, digits, machine=PLAIN, lanes=cluster.tasks("local", 2)))
    assert [outcome.status for outcome in outcomes].count("done") == 12
    assert table(sorted(outcomes, key=lambda o: cells.index(o.cell))) == in_peace

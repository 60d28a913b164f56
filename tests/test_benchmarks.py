"""The benchmark without its peers: a worker, its failures, what is written, and what is right."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks is no part of the package

from benchmarks import oracle, report, run, scan_times, scans, training, worker  # noqa: E402
from benchmarks.case import QUICK, Effort, enough, repeat  # noqa: E402

TINY = "scan-forward:ours-fused-eager:1x20x8x4"
RECORD = {"name", "measurement", "peer", "shape", "axes", "note", "baseline", "seconds_in_all"}
TIMES = {"min_ms", "median_ms", "repetitions"}


def test_worker_measures_a_tiny_case():
    record = run.measure(worker.find(TINY), quick=True)
    assert record.keys() >= RECORD | TIMES, record
    assert record["name"] == TINY and record["shape"] == [1, 20, 8, 4]
    assert 0 < record["min_ms"] <= record["median_ms"] < record["first_ms"]
    assert record["repetitions"] >= QUICK.at_least
    assert record["max_error"] < 1e-5


def test_failures_are_recorded(tmp_path, monkeypatch):
    case = worker.find(TINY)
    assert "timed out" in run.measure(case, limit=0.01)["error"]
    nobody = dataclasses.replace(case, peer="nobody")
    monkeypatch.setattr(sys, "stdout", open(tmp_path / "shown", "w"))
    results = {"about": {}, "records": []}
    run.measure_all([nobody], tmp_path / "part", results, run.parse([]))
    [record] = json.loads((tmp_path / "part").read_text())["records"]
    assert record.keys() == RECORD | {"error"}
    assert "no case is called 'scan-forward:nobody:1x20x8x4'" in record["error"]


def test_resumed_run_measures_only_what_is_missing(tmp_path, capsys):
    case = worker.find(TINY)
    results = {"records": [{"name": case.name}]}
    run.measure_all([case], tmp_path / "part", results, run.parse([]))
    assert results == {"records": [{"name": case.name}]}
    assert not (tmp_path / "part").exists() and capsys.readouterr().out == ""


def test_results_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    run.write(path, {"records": [1]})
    with pytest.raises(TypeError):
        run.write(path, {"records": [2, object()]})
    assert json.loads(path.read_text()) == {"records": [1]}
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".tmp"] == ["results.json"]


def test_names_are_unique_and_lead_back_to_their_cases():
    cases = worker.all_cases()
    assert len({case.name for case in cases}) == len(cases)
    assert all(worker.find(case.name).record() == case.record() for case in cases)


def test_one_baseline_where_peers_are_compared():
    groups = {}
    for record in (case.record() for case in worker.all_cases()):
        groups.setdefault(report.group_of(record), []).append(record)
    for members in groups.values():
        assert sum(r["baseline"] for r in members) == (len(members) > 1), members


def test_ratios_are_to_the_baseline_of_the_same_shape():
    def record(peer, shape, time):
        names = {"measurement": "m", "peer": peer, "shape": shape, "baseline": peer == "ours"}
        return names | ({"min_ms": time} if time else {"error": "failed"})

    records = [record("ours", [1], 2.0), record("a", [1], 5.0), record("a", [2], 7.0)]
    records += [record("b", [1], None), record("ours", [3], None), record("a", [3], 1.0)]
    assert [r.get("ratio_min") for r in report.with_ratios(records)] == [1, 2.5] + 4 * [None]


def test_repetitions_stay_within_their_bounds():
    effort = Effort(seconds=1, at_least=2, at_most=4, patience=10)
    assert [enough(t, effort) for t in ([], [5], [0.1, 0.1], [0.6, 0.6], 4 * [0.1], [11])] == (
        [False, False, False, True, True, True]
    )
    calls = []
    timed = repeat(lambda: calls.append(1), Effort(0, 3, 5))
    assert timed["repetitions"] == 3 and len(calls) == 4
    slow = repeat(lambda: calls.append(1), Effort(0, 3, 5, patience=0), compiles=False)
    assert slow["repetitions"] == 1 and slow["first_ms"] == slow["min_ms"]


def test_oracle_is_its_own_derivative():
    inputs, weights = oracle.make_inputs((2, 5, 3, 2))
    rng = np.random.default_rng(1)
    inputs = {name: value.astype(float) for name, value in inputs.items()}
    gradients = oracle.gradients(weights, **inputs)
    for name, gradient in zip(inputs, gradients, strict=True):
        change = 1e-6 * rng.standard_normal(gradient.shape)
        up, down = (
            np.sum(weights * oracle.forward(**inputs | {name: inputs[name] + s * change})[0])
            for s in (1, -1)
        )
        assert np.isclose((up - down) / 2, np.sum(gradient * change), rtol=1e-5), name


@pytest.mark.parametrize("peer", ["reference-loop", "sixteen-states", "naive-tensorflow"])
def test_own_comparisons_compute_what_the_package_computes(peer):
    scan = next(s for s in scans.SCANS if s.peer == peer)
    for direction in scan.directions:
        record = scan_times.measure(scan, direction == "gradient", (2, 32, 3, 2), Effort(0, 1, 1))
        assert record["max_error"] < 1e-5, direction


def test_targets_of_training_follow_their_inputs():
    inputs, targets = training.make_batch(2, 8, 100)
    assert inputs.shape == targets.shape == (2, 8)
    assert (inputs[:, 1:] == targets[:, :-1]).all()


def test_results_on_disk_are_of_a_whole_run():
    path = ROOT / "benchmarks" / "results.json"
    if not path.exists():
        pytest.skip("no results yet")
    results = json.loads(path.read_text())
    about = {"date", "load_average", "machine", "versions", "onednn", "torch_threads", "python"}
    assert results["about"].keys() >= about and not results["about"]["quick"]
    assert results["about"]["machine"].keys() >= {"cpu", "cores", "memory_gib", "system"}
    for record in results["records"]:
        assert record.keys() >= RECORD
        measured = {"error", "peak_mib", "max_error"} & record.keys()
        assert measured or TIMES <= record.keys()
        if record["measurement"] == "checkpoint-roundtrip":
            assert record["max_error"] < 1e-5
    found = {record["name"] for record in results["records"]}
    assert found == {case.name for case in worker.all_cases()}

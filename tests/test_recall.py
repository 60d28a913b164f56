"""Recall by three models: equal sizes, and weights that make what is stored."""

import pytest

from tf_mamba_edu.experiments import recall
from tf_mamba_edu.experiments.recall import CASES, KEPT, KINDS, RATES, SEEDS, TASKS
from tf_mamba_edu.experiments.store import Results, complete


@pytest.mark.parametrize("task", TASKS)
def test_all_have_about_as_many_parameters(task):
    sizes = {kind: recall.model_of(kind, task).count_params() for kind in KINDS}
    small = sizes.pop("mamba, state 4")  # the same width, and less of a state
    assert max(sizes.values()) / min(sizes.values()) < 1.05, sizes
    assert 0.85 < small / sizes["mamba"] < 1


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(recall, "STEPS", 4)
    monkeypatch.setattr(recall, "STEPS_PER_EPOCH", 2)
    monkeypatch.setattr(recall, "TOKENS", 64)
    monkeypatch.setattr(recall, "SEQUENCES", 32)


CROSSED = [("copying", "mamba"), ("copying", "gru"), ("pairs", "mamba, state 4")]
CROSSED += [("pairs", "transformer")]


@pytest.mark.parametrize(("task", "kind"), CROSSED)
def test_a_run_is_measured_with_the_weights_that_are_stored(task, kind, tiny, tmp_path):
    results, name = Results("comparison-recall", tmp_path), f"{task} 8 {kind}-{KEPT}"
    complete(results, {name: lambda: recall.learn(results, name, task, 8, kind, 5e-3, KEPT)})
    found = results.runs[name]
    assert [(e["step"], e["length"]) for e in found["history"]] == [(2, 8), (4, 8)]
    assert found["steps"] == 4 and not found["learned"]
    again = recall.load(results, task, 8, kind)
    assert recall.right(again, task, 8) == found["accuracy"]
    assert not list(tmp_path.glob("*.state"))


def test_a_training_ends_when_the_answers_are_right(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(recall, "ENOUGH", 0.0)
    results = Results("comparison-recall", tmp_path)
    found = recall.learn(results, "a-0", "copying", 8, "gru", 5e-3, 0)
    assert found["steps"] == 2 and found["learned"]


def test_of_those_that_learned_the_soonest_is_chosen_else_the_most_right(tmp_path):
    results = Results("comparison-recall", tmp_path)

    def chosen(*runs):
        for rate, (learned, steps, accuracy) in zip(RATES, runs, strict=True):
            results.runs[recall.choice("pairs", "gru", rate)] = {
                "learned": learned,
                "steps": steps,
                "accuracy": accuracy,
            }
        best = recall.best_of(results, "pairs", "gru")
        return [recall.choice("pairs", "gru", rate) for rate in RATES].index(best)

    no = (False, 1500, 0.9)
    assert chosen((True, 800, 1.0), (True, 300, 0.995), (True, 400, 1.0), no, no, no) == 1
    assert chosen(*[(False, 1500, accuracy) for accuracy in (0.4, 0.3, 0.6, 0.1, 0.2, 0.2)]) == 2
    assert chosen(*[(a >= 0.99, 1500, a) for a in (0.989, 0.3, 0.99, 0.98, 0.97, 0.1)]) == 2


def test_each_case_has_three_runs(monkeypatch, tmp_path):
    made = []

    def learn(results, run, task, length, kind, rate, seed):
        made.append(run)
        best = RATES[1 if kind == "gru" else 2]
        what = {"task": task, "length": length, "kind": kind, "learning_rate": rate}
        result = {"learned": rate == best, "steps": 10, "accuracy": 1.0, "seed": seed}
        return what | result

    def complete(results, runs):
        for name, make in runs.items():
            results.runs[name] = make()

    monkeypatch.setattr(recall, "learn", learn)
    monkeypatch.setattr(recall, "complete", complete)
    results = recall.main(tmp_path)
    assert len(set(made)) == len(made) == 78
    for task, length in CASES:
        for kind in KINDS:
            runs = recall.runs_of(results, task, length, kind)
            assert [r["seed"] for r in runs] == list(SEEDS)
            assert {(r["task"], r["length"], r["kind"]) for r in runs} == {(task, length, kind)}
            assert {r["learning_rate"] for r in runs} == {RATES[1 if kind == "gru" else 2]}
    assert not [run for run in made if "state 4" in run and "0." in run]  # it takes Mamba's rate


MADE = [name for name in ("comparison-recall",) if Results(name).path.exists()]


@pytest.mark.parametrize("name", MADE)
def test_stored_weights_answer_as_they_did(name):
    results = Results(name)
    again = recall.measure(results)["accuracy_by_length"]
    for key, stored in again.items():
        assert stored == pytest.approx(results.metrics["accuracy_by_length"][key], abs=1e-3)
    for task, length in CASES:
        for kind in KINDS:
            run = results.runs[f"{task} {length} {kind}-{KEPT}"]
            assert again[f"{task} {kind}"][str(length)] == pytest.approx(run["accuracy"], abs=1e-3)

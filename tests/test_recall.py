"""Recall by three models: equal sizes, and weights that make what is stored."""

import pytest

from tf_mamba_edu.experiments import recall
from tf_mamba_edu.experiments.recall import RATES, TASKS
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.experiments.token_models import Stage


def test_all_have_about_as_many_parameters():
    sizes = {kind: recall.model_of(kind).count_params() for kind in RATES}
    small = sizes.pop("mamba, state 4")  # the same width, and less of a state
    assert max(sizes.values()) / min(sizes.values()) < 1.05, sizes
    assert 0.85 < small / sizes["mamba"] < 1


@pytest.mark.parametrize("kind", RATES)
@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_measured_with_the_weights_that_are_stored(kind, task, monkeypatch, tmp_path):
    monkeypatch.setattr(recall, "STAGES", (Stage(8, 3, 4), Stage(12, 2, 4)))
    monkeypatch.setattr(recall, "LENGTHS", (8, 12))
    monkeypatch.setattr(recall, "SEQUENCES", 32)
    results, name = Results("comparison-recall", tmp_path), f"{task} {kind}-0"
    complete(results, {name: lambda: recall.learn(results, name, task, kind, 0)})
    found = results.runs[name]
    assert [(e["step"], e["length"]) for e in found["history"]] == [(3, 8), (5, 12)]
    assert found["stages"] == [[8, 3, 4], [12, 2, 4]]
    again = recall.load(results, task, kind)
    assert recall.by_length(again, task) == found["accuracy_by_length"]
    assert not list(tmp_path.glob("*.state"))


MADE = [name for name in ("comparison-recall",) if Results(name).path.exists()]


@pytest.mark.parametrize("name", MADE)
def test_stored_weights_answer_as_they_did(name):
    results = Results(name)
    for key, stored in recall.measure(results)["accuracy_by_length"].items():
        assert stored == pytest.approx(results.metrics["accuracy_by_length"][key], abs=1e-3)
        assert stored == pytest.approx(results.runs[f"{key}-0"]["accuracy_by_length"], abs=1e-3)

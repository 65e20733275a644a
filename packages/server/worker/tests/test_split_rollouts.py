"""A rollout that had to be cut into several sequences trains as if it were one, whatever the objective."""

import pytest
from test_losses_steps import CHANGES, joined
from test_train_gradients import split
from test_train_memory import run
from train_tiny import grown_forest, last_gradient, relative_difference, sample_logprobs


def by_rollout(forest):
    owners = sorted({forest.completions[leaf].rollout for leaf in forest.leaves()})
    return joined([i for i in forest.leaves() if forest.completions[i].rollout == owner] for owner in owners)


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("name", list(CHANGES))
def test_a_rollout_cut_into_sequences_has_the_same_gradient(base, policy, tmp_path, name, seed):
    forest = grown_forest(seed)
    sample_logprobs(forest, policy, noise=0.05, seed=seed)
    pieces = split(forest)
    assert len(pieces.leaves()) > len(forest.leaves())
    metrics = []
    for folder, one in (("whole", forest), ("pieces", pieces)):
        events = run(
            base,
            one,
            policy,
            tmp_path / folder,
            plan=[[by_rollout(one)]],
            loss={"type": name, **CHANGES[name]},
        )
        metrics.append(events[-1]["metrics"])
    gradients = [last_gradient(tmp_path / folder, 0.9) for folder in ("whole", "pieces")]
    assert relative_difference(*gradients) < 1e-5
    assert metrics[0]["grad_norm"] > 0 and metrics[0]["train_tokens"] == metrics[1]["train_tokens"]
    assert metrics[1]["model_tokens"] >= metrics[0]["model_tokens"]

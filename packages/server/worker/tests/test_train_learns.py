"""Many operations in a row teach a tiny model to say one token, and teach it nothing when rewards lie."""

from pathlib import Path

import pytest
import torch
import train_reference as reference
from train_reference import Completion, Forest
from train_tiny import SPEC, VOCABULARY, save_policy, tiny_base, train

from hone_worker.base.adapter_files import fresh_adapter, read_adapter

WANTED, LENGTH, GROUPS, SIZE, STEPS = 7, 6, 4, 8, 45


@torch.no_grad()
def sample(base, weights, prompts: list[list[int]], random: torch.Generator):
    """Plain sampling, all rows at once: ids and the logprob of each."""
    ids, chosen = torch.tensor(prompts), []
    for _ in range(LENGTH):
        with base.router.single(weights):
            logits = base.model(ids, use_cache=False).logits[:, -1].float()
        logs = torch.log_softmax(logits, -1)
        token = torch.multinomial(logs.exp(), 1, generator=random)
        chosen.append(logs.gather(1, token))
        ids = torch.cat([ids, token], 1)
    return ids[:, -LENGTH:].tolist(), torch.cat(chosen, 1).tolist()


def run(folder: Path, lies: bool) -> list[float]:
    """Mean reward of each step's rollouts."""
    base = tiny_base()
    random = torch.Generator().manual_seed(17)
    checkpoint = save_policy(folder / "0", base, fresh_adapter(base.model, SPEC, 2))
    means = []
    for step in range(1, STEPS + 1):
        weights = read_adapter(checkpoint, base.model)
        prompts = [torch.randint(VOCABULARY, (4,), generator=random).tolist() for _ in range(GROUPS)]
        rows = [prompts[i // SIZE] for i in range(GROUPS * SIZE)]
        answers, logprobs = sample(base, weights, rows, random)
        earned = [answer.count(WANTED) / LENGTH for answer in answers]
        means.append(sum(earned) / len(earned))
        told = earned
        if lies:
            order = torch.randperm(len(earned), generator=random).tolist()
            told = [earned[i] for i in order]
        groups = [told[g * SIZE : (g + 1) * SIZE] for g in range(GROUPS)]
        if all(len(set(group)) == 1 for group in groups):
            continue  # nothing to compare in this step
        forest = Forest()
        for i, answer in enumerate(answers):
            forest.add(
                Completion(
                    rows[i] + answer,
                    [0] * 4 + [1] * LENGTH,
                    forest.rollout(told[i], i // SIZE),
                    policy=step - 1,
                    logprobs=[0.0] * 4 + logprobs[i],
                )
            )
        leaves = forest.leaves()
        given = reference.config(
            step=step,
            checkpoint=str(checkpoint),
            staging=str(folder / str(step)),
            optimizer={"learning_rate": 0.02, "warmup_steps": 2},
            loss={"normalizer_tokens": LENGTH},
            plan=[[leaves[:16], leaves[16:]]],
            max_mismatch=1e-3,
        )
        metrics = train(base, forest, given)["metrics"]
        assert metrics["reward"] == pytest.approx(means[-1])
        checkpoint = folder / str(step)
    return means


def test_the_reward_rises_and_does_not_when_rewards_are_shuffled(tmp_path):
    honest, lied = run(tmp_path / "honest", False), run(tmp_path / "lies", True)
    assert honest[0] == lied[0] < 0.15
    assert sum(honest[-3:]) / 3 > 0.6
    assert max(lied) < 0.3

"""Imitation and preferences against TRL's own code, through a trained adapter: loss and gradient, packed and not."""

import json
import zlib

import pytest
import torch
import train_reference as reference
from supervised_trl import dpo_loss, prepared, sft_loss
from train_reference import Completion, Forest
from train_tiny import (
    VOCABULARY,
    last_gradient,
    loss_inputs,
    peft_parameters,
    relative_difference,
    save_policy,
    tiny_base,
    train,
    trained_adapter,
    under_peft,
)

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.objectives import dpo, sft
from hone_worker.train.step_data import parse_config

CASES = 100  # of each of two packings, and other ones in each
OPTIMIZER = {"learning_rate": 0.01, "max_grad_norm": 1e9, "warmup_steps": 0}


@pytest.fixture(scope="module")
def base():
    # In float64: what differs is then the formula, not the rounding.
    return tiny_base(dtype=torch.float64)


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy") / "p", base, trained_adapter(base, size=0.3))


@pytest.fixture(scope="module")
def peft(folder):
    return prepared(under_peft(folder, torch.float64))


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in peft_parameters(model).items()}


def apart(ours, theirs):
    """The worst over parameters, each against its own size, or a hundredth of all if that is more.

    Queries and keys of a token that sees itself alone have no gradient, of which rounding leaves something (TRL's head
    is of float32).
    """
    least = 0.01 * torch.cat([theirs[name].flatten().double() for name in theirs]).norm().item()
    return max(
        (ours[n].double() - theirs[n].double()).norm().item() / max(theirs[n].double().norm().item(), least)
        for n in theirs
    )


def ints(random, low, high):
    return int(torch.randint(low, high + 1, (1,), generator=random))


def ids(random, length):
    return torch.randint(VOCABULARY, (length,), generator=random).tolist()


def foreign(ids, mask, rollout):
    """What no policy sampled."""
    return Completion(suffix=ids, sampled=mask, rollout=rollout, policy=-1)


def cut_up(leaves, random, together=1):
    """A plan of one optimizer step in random micro-batches, `together` leaves never parted."""
    plan = [[]]
    for at in range(0, len(leaves), together):
        if plan[-1] and torch.rand(1, generator=random) < 0.4:
            plan.append([])
        plan[-1].extend(leaves[at : at + together])
    return [plan]


def trained_on(base, folder, tmp_path, forest, plan, loss, packing, **changes):
    given = reference.config(
        staging=str(tmp_path / "staging"),
        checkpoint=str(folder),
        plan=plan,
        loss=loss,
        packing=packing,
        optimizer=OPTIMIZER,
        **changes,
    )
    return train(base, forest, given)["metrics"]


def drawn_for(*what: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(" ".join(what).encode()))


def sft_case(random):
    """Sequences, some of them with a common beginning, with masks in pieces, cut at a random length."""
    shared = ids(random, ints(random, 0, 8))
    limit = ints(random, 6, 30)
    sequences = []
    for _ in range(ints(random, 1, 5)):
        tokens = (
            (shared if torch.rand(1, generator=random) < 0.5 else []) + ids(random, ints(random, 2, 30))
        )[:limit]
        mask = (torch.rand(len(tokens), generator=random) < 0.6).int().tolist()
        mask[0], mask[-1] = 0, 1
        sequences.append((tokens, mask))
    return sequences


@pytest.mark.parametrize("packing", ["rows", "tree"])
def test_imitation_is_trls_sft_loss(base, folder, peft, tmp_path, packing):
    random = drawn_for(packing)
    worst = 0.0
    for case in range(CASES):
        sequences = sft_case(random)
        loss = sft_loss(peft, sequences)
        theirs = gradients(peft, loss)
        forest = Forest()
        for number, (tokens, mask) in enumerate(sequences):
            forest.add(foreign(tokens, mask, forest.rollout(1.0, number)))
        plan = cut_up(forest.leaves(), random)
        where = tmp_path / str(case)
        metrics = trained_on(base, folder, where, forest, plan, {"type": "sft"}, packing)
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
        worst = max(worst, apart(last_gradient(where / "staging", 0.9), theirs))
        assert metrics["train_tokens"] == sum(sum(mask) for _, mask in sequences)
    assert worst < 1e-5
    assert metrics["perplexity"] == pytest.approx(torch.tensor(metrics["loss"]).exp().item(), rel=1e-5)
    assert [metrics[n] for n in ("reward", "policy_loss", "sampling/sampling_logp_difference/mean")] == [
        None
    ] * 3


def dpo_case(random, pairs):
    return [
        {
            "prompt_ids": ids(random, ints(random, 1, 10)),
            "chosen_ids": ids(random, ints(random, 1, 14)),
            "rejected_ids": ids(random, ints(random, 1, 14)),
        }
        for _ in range(pairs)
    ]


def forest_of(pairs, limit):
    forest = Forest()
    for group, pair in enumerate(pairs):
        for reward, side in ((1.0, "chosen_ids"), (0.0, "rejected_ids")):
            prompt, said = pair["prompt_ids"], pair[side]
            mask = [0] * len(prompt) + [1] * len(said)
            forest.add(foreign((prompt + said)[:limit], mask[:limit], forest.rollout(reward, group)))
    return forest


@pytest.mark.parametrize("packing", ["rows", "tree"])
@pytest.mark.parametrize("kind", ["sigmoid", "sigmoid_norm", "ipo", "sigmoid+sft"])
def test_preferences_are_trls_dpo_loss(base, folder, peft, tmp_path, packing, kind):
    random = drawn_for(packing, kind)
    name, _, extra = kind.partition("+")
    worst = 0.0
    for case in range(CASES):
        # RPO's term is a mean over each pair's own tokens, TRL's over those of a batch: one pair is both.
        pairs = dpo_case(random, 1 if extra else ints(random, 1, 4))
        limit = max(len(p["prompt_ids"]) for p in pairs) + ints(random, 1, 12)
        weights = {name: 1.0, **({"sft": 0.7} if extra else {})}
        # TRL's head is of float32: where IPO's square is nearly 0, its gradient would be of rounding alone.
        beta = (0.05 + float(torch.rand(1, generator=random))) * (0.1 if name == "ipo" else 1)
        loss, seen = dpo_loss(peft, pairs, limit, weights, beta)
        theirs = gradients(peft, loss)
        forest = forest_of(pairs, limit)
        options = {"type": "dpo", "beta": beta, "loss": name, "sftWeight": 0.7 if extra else 0.0}
        where = tmp_path / str(case)
        plan = cut_up(forest.leaves(), random, together=2)
        metrics = trained_on(base, folder, where, forest, plan, options, packing)
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
        worst = max(worst, apart(last_gradient(where / "staging", 0.9), theirs))
        for metric in (
            "rewards/chosen",
            "rewards/rejected",
            "rewards/margins",
            "logps/chosen",
            "logps/rejected",
        ):
            assert metrics[metric] == pytest.approx(seen[metric], rel=1e-4, abs=1e-5)
        assert metrics["rewards/accuracies"] == pytest.approx(seen["rewards/accuracies"])
    assert worst < 1e-5


def test_what_trl_lacks_is_its_formula():
    """Conservative labels, and the policy of the start as the reference: by hand in float64, gradients too."""
    random = torch.Generator().manual_seed(7)
    for _ in range(200):
        pairs = ints(random, 1, 4)
        lengths = [ints(random, 1, 6) for _ in range(2 * pairs)]
        rollout = torch.cat([torch.full((n,), r) for r, n in enumerate(lengths)])
        now = (-torch.rand(len(rollout), generator=random, dtype=torch.float64) * 4).requires_grad_()
        ref = -torch.rand(len(rollout), generator=random, dtype=torch.float64) * 4
        advantages = torch.where(rollout % 2 == 0, 1.0, -1.0).double()
        smooth, weight = float(torch.rand(1, generator=random)) * 0.49, float(torch.rand(1, generator=random))
        start = bool(torch.rand(1, generator=random) < 0.5)
        options = dpo.Dpo(
            beta=0.3, label_smoothing=smooth, sft_weight=weight, reference="start" if start else "base"
        )
        given = {"group": rollout // 2, **({} if start else {"reference": ref})}
        outputs = dpo.loss(loss_inputs(now, ref, ref, advantages, rollout, 2 * pairs, **given), options)
        (ours,) = torch.autograd.grad(outputs.total, now)

        total = torch.zeros((), dtype=torch.float64)
        for pair in range(pairs):
            chosen, rejected = rollout == 2 * pair, rollout == 2 * pair + 1
            margin = 0.3 * ((now - ref)[chosen].sum() - (now - ref)[rejected].sum())
            total = total + (1 - smooth) * torch.log1p(torch.exp(-margin))
            total = total + smooth * torch.log1p(torch.exp(margin)) - weight * now[chosen].mean()
        (theirs,) = torch.autograd.grad(total / pairs, now)
        assert outputs.total.item() == pytest.approx(total.item() / pairs, rel=1e-12)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_a_token_of_weight_two_is_imitated_as_two():
    now = -torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = torch.tensor([1, 1, 2, 1, 1, 1.0], dtype=torch.float64)

    def total(where, **given):
        inputs = loss_inputs(now[where], now[where], now[where], torch.ones(len(where)), where, 6, **given)
        return sft.loss(inputs, sft.Sft()).total.item()

    twice = torch.tensor([0, 1, 2, 3, 4, 5, 2])
    assert total(torch.arange(6), weights=weights) == pytest.approx(total(twice), rel=1e-12)


def test_another_policy_is_the_reference_where_the_step_names_one(base, folder, tmp_path):
    forest = forest_of(dpo_case(torch.Generator().manual_seed(3), 3), 40)
    plan, loss = [[forest.leaves()]], {"type": "dpo", "reference": 4}
    # Its own policy: nothing has moved, so every pair is even.
    metrics = trained_on(base, folder, tmp_path / "a", forest, plan, loss, "tree", reference=str(folder))
    assert metrics["loss"] == pytest.approx(torch.tensor(2.0).log().item(), rel=1e-6)
    assert metrics["rewards/margins"] == pytest.approx(0, abs=1e-6)
    metrics = trained_on(base, folder, tmp_path / "b", forest, plan, loss, "tree")
    assert abs(metrics["rewards/margins"]) > 1e-3


@pytest.mark.parametrize("loss", [{"type": "sft"}, {"type": "dpo"}])
def test_an_evaluation_tells_the_same_loss_and_writes_nothing(base, folder, tmp_path, loss):
    forest = forest_of(dpo_case(torch.Generator().manual_seed(4), 3), 40)
    plan = [[forest.leaves()[:2], forest.leaves()[2:]]]
    trained = trained_on(base, folder, tmp_path / "a", forest, plan, loss, "tree")
    seen = trained_on(base, folder, tmp_path / "b", forest, plan, loss, "tree", evaluate=True)
    assert seen["loss"] == trained["loss"] and seen["train_tokens"] == trained["train_tokens"]
    assert seen["grad_norm"] is None and seen["learning_rate"] is None
    assert list((tmp_path / "b" / "staging").iterdir()) == []


def test_what_nobody_sampled_is_refused_by_an_objective_that_corrects_for_the_sampler(base, folder, tmp_path):
    forest = forest_of(dpo_case(torch.Generator().manual_seed(4), 1), 40)
    with pytest.raises(HoneWorkerError, match="no policy of ours sampled") as caught:
        trained_on(base, folder, tmp_path, forest, [[forest.leaves()]], {}, "tree")
    assert caught.value.param == "completion_policy"


def test_a_plan_that_parts_a_pair_is_refused(base, folder, tmp_path):
    forest = forest_of(dpo_case(torch.Generator().manual_seed(4), 1), 40)
    with pytest.raises(HoneWorkerError, match="as a whole"):
        trained_on(base, folder, tmp_path, forest, [[[0], [1]]], {"type": "dpo"}, "tree")


def test_labels_have_no_smoothing_in_ipo():
    with pytest.raises(HoneWorkerError, match="labelSmoothing"):
        parse_config(json.dumps(reference.config(loss={"type": "dpo", "loss": "ipo", "labelSmoothing": 0.1})))


def test_a_base_that_takes_no_trees_keeps_pairs_together(base, folder, tmp_path, monkeypatch):
    forest = forest_of(dpo_case(torch.Generator().manual_seed(8), 6), 40)
    plan, loss = [[forest.leaves()]], {"type": "dpo", "sftWeight": 0.3}
    packed = trained_on(base, folder, tmp_path / "a", forest, plan, loss, "tree")
    monkeypatch.setattr("hone_worker.train.operation.obstacle", lambda *_args: "it has a window")
    apart = trained_on(base, folder, tmp_path / "b", forest, plan, loss, "tree")
    assert packed["unpacked_micro_batches"] == 0 and apart["unpacked_micro_batches"] > 1
    assert apart["loss"] == pytest.approx(packed["loss"], rel=1e-9)
    ours, theirs = (last_gradient(tmp_path / name / "staging", 0.9) for name in "ab")
    assert relative_difference(ours, theirs) < 1e-6

"""Reward models against TRL's own RewardTrainer, through a trained adapter and a trained head: loss and every gradient,
packed and not. What is written goes on to the bit, scores as it trained, and exports as transformers loads it."""

import shutil
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import train_reference as reference
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file
from train_reference import Completion, Forest
from train_tiny import (
    SPEC,
    VOCABULARY,
    last_gradient,
    relative_difference,
    save_policy,
    tiny_base,
    tiny_model,
    train,
    trained_adapter,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Qwen3ForSequenceClassification
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from hone_worker.base.adapter_files import fresh_adapter, read_adapter, write_adapter
from hone_worker.base.lora import LoraSpec, LoraWeights, default_targets
from hone_worker.base.model import load_base
from hone_worker.base.score_head import HEAD_FILE, HEAD_NAME, fresh_head, head_bytes, read_head
from hone_worker.process.errors import HoneWorkerError
from hone_worker.score.policy_scores import PolicyScorer
from hone_worker.tools.merge import merge_classifier
from hone_worker.train.head_state import HEAD_OPTIMIZER_FILE

CASES = 100  # of each of two packings, and other ones in each
OPTIMIZER = {"learning_rate": 0.01, "max_grad_norm": 1e9, "warmup_steps": 0}
PAD = VOCABULARY - 1


@pytest.fixture(scope="module")
def base():
    # In float64: what differs is then the formula, not the rounding.
    return tiny_base(dtype=torch.float64)


def trained_head(base, seed=5):
    return fresh_head(base.model, seed) * 20


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    folder = save_policy(tmp_path_factory.mktemp("policy") / "p", base, trained_adapter(base, size=0.3))
    (folder / HEAD_FILE).write_bytes(head_bytes(trained_head(base)))
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    """The same weights in transformers' classifier under PEFT, the head trained beside its adapter."""
    causal = tiny_model(torch.float64)
    model = Qwen3ForSequenceClassification(
        causal.config.__class__(**{**causal.config.to_dict(), "num_labels": 1})
    )
    model = model.to(torch.float64).eval()
    model.model.load_state_dict(causal.model.state_dict())
    model.config.pad_token_id = PAD
    targets = sorted({path.rsplit(".", 1)[-1] for path in read_adapter(folder, causal).tensors})
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=SPEC.r,
        lora_alpha=SPEC.alpha,
        target_modules=targets,
        modules_to_save=["score"],
    )
    peft = get_peft_model(model, config).to(torch.float64).eval()
    stored = {**load_file(folder / "adapter_model.safetensors"), **load_file(folder / HEAD_FILE)}
    with torch.no_grad():
        for name, parameter in named(peft).items():
            source = stored[name] if name == HEAD_NAME else stored["base_model.model." + name]
            parameter.copy_(source.double())
    return peft


def named(peft):
    """By the trainer's names."""
    return {
        name.removeprefix("base_model.model.")
        .replace(".default", "")
        .replace(".modules_to_save", ""): parameter
        for name, parameter in peft.named_parameters()
        if parameter.requires_grad
    }


def trl(model, pairs, centering):
    """RewardTrainer's own loss on its own collator's batch, and its metrics."""
    inputs = dict(DataCollatorForPreference(pad_token_id=PAD)(pairs))
    trainer = SimpleNamespace(
        model=model,
        args=SimpleNamespace(center_rewards_coefficient=centering),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    loss = RewardTrainer.compute_loss(trainer, model, inputs)
    model.zero_grad()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in named(model).items()}
    return loss.item(), gradients, {name: values[-1] for name, values in trainer._metrics["eval"].items()}


def case(random):
    """Pairs that share a prompt each, none of which ends with the padding."""

    def ids(low, high):
        length = int(torch.randint(low, high + 1, (1,), generator=random))
        return torch.randint(VOCABULARY - 1, (length,), generator=random).tolist()

    prompts = [ids(1, 10) for _ in range(int(torch.randint(1, 5, (1,), generator=random)))]
    return [{"chosen_ids": p + ids(1, 14), "rejected_ids": p + ids(1, 14)} for p in prompts]


def forest_of(pairs):
    forest = Forest()
    for group, pair in enumerate(pairs):
        for reward, side in ((1.0, "chosen_ids"), (0.0, "rejected_ids")):
            ids = pair[side]
            mask = [0] * (len(ids) - 1) + [1]
            forest.add(Completion(suffix=ids, sampled=mask, rollout=forest.rollout(reward, group), policy=-1))
    return forest


def trained_on(base, folder, tmp_path, pairs, *, cuts=(), centering=0.01, packing="tree", **changes):
    forest = forest_of(pairs)
    plan, leaves = [[]], forest.leaves()
    for at in range(0, len(leaves), 2):
        if at and at in cuts:
            plan.append([])
        plan[-1].extend(leaves[at : at + 2])
    options = {
        "staging": str(tmp_path / "staging"),
        "checkpoint": str(folder),
        "plan": [plan],
        "loss": {"type": "bradley_terry", "centering": centering},
        "packing": packing,
        "optimizer": OPTIMIZER,
    }
    return train(base, forest, reference.config(**{**options, **changes}))["metrics"]


def gradients_in(folder):
    found = last_gradient(folder, 0.9)
    head = load_file(folder / HEAD_OPTIMIZER_FILE)[f"{HEAD_NAME}.exp_avg"] / (1 - 0.9)
    return {**found, HEAD_NAME: head}


@pytest.mark.parametrize("packing", ["rows", "tree"])
def test_it_is_trls_reward_trainer(base, folder, theirs, tmp_path, packing):
    random = torch.Generator().manual_seed({"rows": 9, "tree": 10}[packing])
    worst = 0.0
    for number in range(CASES):
        pairs, centering = case(random), float(torch.rand(1, generator=random)) * 0.1
        loss, gradients, seen = trl(theirs, pairs, centering)
        where = tmp_path / str(number)
        cuts = {2 * k for k in range(1, len(pairs)) if torch.rand(1, generator=random) < 0.4}
        metrics = trained_on(base, folder, where, pairs, cuts=cuts, centering=centering, packing=packing)
        assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
        worst = max(worst, relative_difference(gradients_in(where / "staging"), gradients))
        for name in ("accuracy", "margin", "min_reward", "mean_reward", "max_reward"):
            assert metrics[name] == pytest.approx(seen[name], rel=1e-5, abs=1e-7)
        shutil.rmtree(where)
    assert worst < 1e-5


def step_on(base, folder, tmp_path, pairs, step):
    where = tmp_path / str(step)
    trained_on(base, folder, where, pairs, step=step, seed=step)
    return where / "staging"


def test_a_policy_goes_on_to_the_bit_from_its_files_and_a_fresh_head_is_the_steps(base, tmp_path):
    base = tiny_base()
    begun = save_policy(tmp_path / "begun", base, trained_adapter(base))
    random = torch.Generator().manual_seed(2)
    steps = [case(random) for _ in range(3)]

    def run(where):
        at = begun
        for number, pairs in enumerate(steps, 1):
            # Each from what the last one wrote, and from nothing that is in memory.
            at = step_on(tiny_base() if where == "b" else base, at, tmp_path / where, pairs, number)
        return {file.name: file.read_bytes() for file in at.iterdir()}

    one, other = run("a"), run("b")
    assert one == other and {HEAD_FILE, HEAD_OPTIMIZER_FILE} < set(one)
    head = read_head(tmp_path / "a" / "1" / "staging", base.model)
    assert head is not None and not torch.equal(head, fresh_head(base.model, 1))
    assert int(load_file(tmp_path / "a" / "3" / "staging" / HEAD_OPTIMIZER_FILE)["updates"]) == 3


def test_an_evaluation_writes_nothing_and_other_steps_carry_the_head_on(folder, tmp_path):
    base = tiny_base()
    pairs = case(torch.Generator().manual_seed(4))
    seen = trained_on(base, folder, tmp_path / "a", pairs, evaluate=True)
    made = trained_on(base, folder, tmp_path / "b", pairs)
    assert seen["loss"] == made["loss"] and list((tmp_path / "a" / "staging").iterdir()) == []
    trained_on(base, tmp_path / "b" / "staging", tmp_path / "c", pairs, step=2, loss={"type": "dpo"})
    for name in (HEAD_FILE, HEAD_OPTIMIZER_FILE):
        assert (tmp_path / "c" / "staging" / name).read_bytes() == (
            tmp_path / "b" / "staging" / name
        ).read_bytes()


@pytest.mark.parametrize(
    "content", [b"nothing", head_bytes(torch.zeros(1, 5)), head_bytes(torch.full((1, 32), torch.nan))]
)
def test_a_head_that_does_not_fit_is_refused(base, folder, tmp_path, content):
    shutil.copytree(folder, tmp_path / "p")
    (tmp_path / "p" / HEAD_FILE).write_bytes(content)
    with pytest.raises(HoneWorkerError, match="Not a usable head") as caught:
        trained_on(base, tmp_path / "p", tmp_path, case(torch.Generator().manual_seed(4)))
    assert caught.value.code == "bad_adapter"


def test_an_export_scores_as_the_policy_does(tmp_path):
    """The base of transformers' files, a trained adapter: conversations through the exported folder alone."""
    source = Path(__file__).parents[4] / "models" / "hone-2048-1m"
    base = load_base(str(source), device="cpu", dtype="float32")
    spec = LoraSpec(4, 8.0, default_targets(base.model))
    random = torch.Generator().manual_seed(3)
    fresh = fresh_adapter(base.model, spec, 3).tensors
    tensors = {p: (a, torch.randn(b.shape, generator=random) * 0.2) for p, (a, b) in fresh.items()}
    policy = tmp_path / "policy"
    policy.mkdir()
    write_adapter(policy, LoraWeights(spec, tensors), "tiny")
    (policy / HEAD_FILE).write_bytes(head_bytes(trained_head(base)))
    out = tmp_path / "out"
    merge_classifier(str(source), policy, out)

    model, loaded = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not loaded["missing_keys"] and not loaded["mismatched_keys"]
    assert model.config.num_labels == 1 and model.config.id2label == {0: "score"}
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.pad_token_id == model.config.pad_token_id is not None
    conversations = [
        [
            {"role": "user", "content": "q" * (1 + n)},
            {"role": "assistant", "content": "yes" if n % 2 else "no, " * n},
        ]
        for n in range(9)
    ]
    texts = [tokenizer.apply_chat_template(c, tokenize=False) for c in conversations]
    batch = tokenizer(
        texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt"
    )
    with torch.no_grad():
        exported = model.eval()(**batch).logits[:, 0].tolist()
    scorer = PolicyScorer(base)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ours = scorer.score(scorer.policy(str(policy)), ids)
    assert len({round(score, 3) for score in ours}) > 5
    assert exported == pytest.approx(ours, abs=1e-4)
    (single,) = scorer.score(scorer.policy(str(policy)), ids[:1])
    assert single == ours[0]
    with pytest.raises(HoneWorkerError, match="no head"):
        merge_classifier(
            str(source),
            Path(shutil.copytree(policy, tmp_path / "bare", ignore=lambda *_: [HEAD_FILE])),
            tmp_path / "o2",
        )

"""What the trainer computes for an engine to be checked by, against PEFT; and what it leaves alone."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch
from train_tiny import VOCABULARY, peft_logprobs, save_policy, tiny_base, trained_adapter, under_peft

from hone_worker.base.adapter_files import WEIGHTS_FILE, fresh_adapter
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.probe import LENGTH, adapter_weights, probe, probe_ids
from hone_worker.train.prompt_logprobs import prompt_logprobs


class Tokenizer:
    """The last ten tokens are not those of texts."""

    all_special_ids = (VOCABULARY - 1,)

    def __len__(self) -> int:
        return VOCABULARY

    def get_added_vocab(self) -> dict[str, int]:
        return {f"<{token}>": token for token in range(VOCABULARY - 10, VOCABULARY)}


@pytest.fixture(scope="module")
def base():
    return replace(tiny_base(), tokenizer=Tokenizer())


def test_it_is_what_peft_computes_with_the_same_files(base, policy):
    found = probe(base, policy)
    ids = found["ids"]
    told = torch.tensor(found["policy"]["prompt"])
    model = under_peft(policy)
    assert torch.allclose(told, peft_logprobs(model, ids, [1.0] * len(ids))[-len(told) :], atol=1e-5)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]
        assert found["policy"]["next"] == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-5)
        with model.disable_adapter():
            logits = model(torch.tensor([ids])).logits[0, -1]
    assert found["base"]["next"] == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-5)
    assert (told - torch.tensor(found["base"]["prompt"])).abs().max() > 0.1


def test_of_any_sequences_it_is_what_peft_computes_too(base, policy):
    sequences = [[3, 1, 4, 1, 5, 9], [2, 7]]
    model = under_peft(policy)
    weights = adapter_weights(base, policy)
    for ids in sequences:
        told = prompt_logprobs(base, weights, ids)
        assert len(told) == len(ids) - 1
        expected = peft_logprobs(model, ids, [1.0] * len(ids))[-len(told) :]
        assert torch.allclose(torch.tensor(told), expected, atol=1e-5)


def test_a_fresh_adapter_answers_as_the_base_does(base, tmp_path):
    weights = trained_adapter(base)
    fresh = save_policy(tmp_path / "fresh", base, fresh_adapter(base.model, weights.spec, 1))
    found = probe(base, fresh)
    assert found["policy"] == found["base"]


def test_its_tokens_are_those_of_texts_and_always_the_same(base):
    ids = probe_ids(base)
    assert len(set(ids)) == len(ids) == LENGTH
    assert max(ids) < VOCABULARY - 10
    assert probe_ids(base) == ids
    assert len(probe_ids(replace(base, max_model_len=6))) == 5


def test_it_takes_no_random_number_and_leaves_no_gradient(base, policy):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = probe(base, policy)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())
    assert probe(base, policy) == first


def test_weights_that_are_not_finite_are_refused_by_name(base, policy):
    file = policy / WEIGHTS_FILE
    tensors = safetensors.torch.load_file(file)
    name = next(iter(tensors))
    tensors[name][0, 0] = torch.nan
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(HoneWorkerError, match=f"{name} holds values that are not finite") as refused:
        probe(base, policy)
    assert refused.value.code == "bad_adapter"

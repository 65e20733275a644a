"""TRL's own supervised losses on a PEFT model that is given to them, their trainers reduced to what the loss reads."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

from peft import PeftModel
from trl import DPOTrainer, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head


def prepared(model: PeftModel) -> PeftModel:
    outputs = ("log_probs", "entropy", "mean_logits", "is_top1")
    add_fused_lm_head(model.get_base_model(), outputs=outputs)
    return model


def _trainer(model: PeftModel, **own) -> SimpleNamespace:
    accelerator = SimpleNamespace(
        device="cpu",
        parallelism_config=None,
        num_processes=1,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        unwrap_model=lambda x: x,
    )
    return SimpleNamespace(
        model=model,
        accelerator=accelerator,
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **own,
    )


def sft_loss(model: PeftModel, sequences: list[tuple[list[int], list[int]]]):
    """SFTTrainer's loss of (ids, mask): one batch, the mean over its unmasked tokens."""
    examples = [
        {"input_ids": ids, "labels": [i if m else -100 for i, m in zip(ids, mask, strict=True)]}
        for ids, mask in sequences
    ]
    inputs = dict(DataCollatorForLanguageModeling(pad_token_id=0)(examples))
    args = SimpleNamespace(loss_type="nll", average_tokens_across_devices=False, max_length=None)
    trainer = _trainer(model, compute_loss_func=None, label_smoother=None, args=args)
    return SFTTrainer.compute_loss(trainer, model, inputs)


def dpo_loss(
    model: PeftModel, pairs: list[dict], max_length: int | None, losses: dict[str, float], beta: float
):
    """DPOTrainer's loss of pairs and its metrics; the reference is the model with its adapter off."""
    inputs = dict(DataCollatorForPreference(pad_token_id=0, max_length=max_length)(pairs))
    trainer = _trainer(
        model,
        ref_model=None,
        precompute_ref_logps=False,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=list(losses),
        loss_weights=list(losses.values()),
        beta=beta,
        label_smoothing=0.0,
        use_weighting=False,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
    )
    loss = DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)
    metrics = trainer._metrics["train" if model.training else "eval"]
    return loss, {name: values[-1] for name, values in metrics.items() if values}

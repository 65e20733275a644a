"""TRL's side of `pnpm experiment learn`: one run of GRPOTrainer, with its own generation and its own loss.

`--job FILE` says what to do (trl.ts writes it). Standard output is JSON lines: `ready` once everything is loaded,
`step` after each step with its seconds since training began, `done`. Adapters go to OUT/step-N in PEFT's format;
the clock stands still while one is saved.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from rewards import reward
from transformers import TrainerCallback, set_seed
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer


def tell(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), file=TOLD, flush=True)


def rewards(prompts: list, completions: list, key: list[str], **_: object) -> list[float]:
    return [
        reward(answer[0]["content"], json.loads(one)) for answer, one in zip(completions, key, strict=True)
    ]


class Clock(TrainerCallback):
    def __init__(self, out: Path, judged: list[int]) -> None:
        self.out = out
        self.judged = set(judged)
        self.began = 0.0
        self.spent = 0.0
        self.paused_spent = 0.0
        self.paused = 0.0
        self.seconds: list[float] = []
        self.processor: list[float] = []

    def on_train_begin(self, args, state, control, **_):
        self.spent = processor_seconds()
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, model=None, **_):
        now, spent = time.perf_counter(), processor_seconds()
        self.seconds.append(now - self.began - self.paused)
        self.processor.append(spent - self.spent - self.paused_spent)
        if state.global_step in self.judged:
            model.save_pretrained(self.out / f"step-{state.global_step}")
        self.paused += time.perf_counter() - now
        self.paused_spent += processor_seconds() - spent

    def on_log(self, args, state, control, logs=None, **_):
        # Told once the step's metrics are there. The last log is a summary of the run and has none.
        if logs is None or "reward" not in logs:
            return
        tell(
            "step",
            step=state.global_step,
            seconds=self.seconds[-1],
            processorSeconds=self.processor[-1],
            reward=logs["reward"],
            tokens=logs.get("completions/mean_length"),
            entropy=logs.get("entropy"),
        )


def build(job: dict[str, Any], clock: Clock) -> GRPOTrainer:
    settings = job["settings"]
    samples = settings["groupsPerStep"] * settings["groupSize"]
    rows = min(settings["trlRows"], samples)
    config = GRPOConfig(
        output_dir=job["out"],
        use_cpu=True,
        # The base's own type below; this would also compute the adapter's products in bfloat16.
        bf16=job["autocast"],
        seed=job["seed"],
        max_steps=settings["steps"],
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=samples // rows,
        num_generations=settings["groupSize"],
        max_completion_length=settings["maxTokens"],
        temperature=settings["temperature"],
        shuffle_dataset=False,
        learning_rate=settings["learningRate"],
        lr_scheduler_type="constant",
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        # Ours: sum over tokens / (samples × C), no KL, one update; with "group" both divide by std (ddof 1) + 1e-4.
        loss_type="dr_grpo",
        scale_rewards=settings["scaleRewards"],
        beta=0.0,
        epsilon=0.2,
        num_iterations=1,
        gradient_checkpointing=False,
        use_transformers_continuous_batching=job["continuousBatching"],
        model_init_kwargs={"dtype": job["dtype"]},
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
    )
    data = Dataset.from_list(
        [{"prompt": one["messages"], "key": json.dumps(one["key"])} for one in job["scenarios"]]
    )
    lora = LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        task_type="CAUSAL_LM",
    )
    trainer = GRPOTrainer(
        model=job["base"],
        reward_funcs=rewards,
        args=config,
        train_dataset=data,
        peft_config=lora,
        callbacks=[clock],
    )
    trainer.create_optimizer()
    warm = settings["warmupSteps"]
    # Hugging Face's warm-up begins at a rate of 0, that is with a step that changes nothing; ours at 1/n.
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
        trainer.optimizer, lambda step: min(1.0, (step + 1) / max(1, warm))
    )
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", type=Path, required=True)
    job = json.loads(parser.parse_args().job.read_text())
    threading.Thread(target=end_with_starter, daemon=True).start()
    logging.set_verbosity_error()
    torch.set_num_threads(job["threads"])
    set_seed(job["seed"])
    clock = Clock(Path(job["out"]), job["judged"])
    trainer = build(job, clock)
    template = trainer.processing_class.apply_chat_template(
        job["scenarios"][0]["messages"], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    tell("ready", promptIds=template["input_ids"])
    trainer.train()
    tell("done")


def processor_seconds() -> float:
    times = os.times()
    return times.user + times.system


def end_with_starter() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


# The protocol has standard output for itself; what libraries print goes to standard error.
TOLD = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

if __name__ == "__main__":
    sys.exit(main())

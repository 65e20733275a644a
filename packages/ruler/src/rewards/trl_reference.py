"""What TRL and Python make of cases read from stdin: rewards, advantages, metrics, texts, code.

The lines that combine rewards stand in the middle of a long method of GRPOTrainer. They are cut out of
TRL's source as it is installed and run as they are.
"""

import inspect
import json
import logging
import math
import sys
import textwrap
import warnings
from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from accelerate import PartialState
from trl.rewards import get_soft_overlong_punishment, think_format_reward
from trl.trainer import grpo_trainer

SOURCE = inspect.getsource(grpo_trainer.GRPOTrainer)


def lines_between(first, last):
    start = SOURCE.rindex("\n", 0, SOURCE.index(first)) + 1
    end = SOURCE.index("\n", SOURCE.index(last, start))
    return textwrap.dedent(SOURCE[start:end])


COMBINE = lines_between("unscorable_mask = torch.isnan(", "advantages = torch.nan_to_num(")
METRICS = lines_between(
    "for i, reward_func_name in enumerate(self.reward_func_names):\n            mean_rewards",
    '["frac_reward_zero_std"].append(',
)


def combine(case):
    values = case["values"]

    def function(column):
        def reward(prompts, **_kwargs):
            return [row[column] for row in values]

        return reward

    names = [f"f{column}" for column in range(len(case["weights"]))]
    metrics = {"train": defaultdict(list)}
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu"),
        reward_funcs=[function(column) for column in range(len(names))],
        reward_processing_classes=[None] * len(names),
        reward_func_names=names,
        state=None,
        _log_completion_extra=None,
        _log_metric=None,
        environments=None,
        reward_weights=torch.tensor(case["weights"]),
        multi_objective_aggregation=case["aggregation"],
        scale_rewards=case["scaleRewards"],
        _metrics=metrics,
    )
    inputs = [{"prompt": "p"} for _ in values]
    calculate = inspect.unwrap(grpo_trainer.GRPOTrainer._calculate_rewards)
    per_function = calculate(trainer, inputs, ["p"] * len(values), ["c"] * len(values), [[0]] * len(values))
    scope = {
        **vars(grpo_trainer),
        "self": trainer,
        "rewards_per_func": per_function,
        "num_generations": case["groupSize"],
        "device": "cpu",
        "mode": "train",
    }
    exec(COMBINE, scope)
    advantages = scope["advantages"]
    exec(METRICS, scope)
    return {
        "advantages": advantages.tolist(),
        "rewards": plain(scope["rewards"].tolist()),
        "metrics": {name: plain(series)[0] for name, series in metrics["train"].items()},
    }


def plain(numbers):
    return [None if math.isnan(number) else number for number in numbers]


def expression(text):
    """What the tutorial does: eval without names."""
    try:
        value = eval(text.strip(), {"__builtins__": None}, {})
        return float(value)
    except Exception:
        return None


def is_python(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(text, "<answer>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return False
    return True


def main():
    asked = json.load(sys.stdin)
    # TRL takes rewards as float32; beyond that its rounding is none of our concern.
    torch.set_default_dtype(torch.float64)
    PartialState(cpu=True)  # TRL's logger wants one
    logging.disable()
    grpo_trainer.gather = lambda tensor: tensor
    grpo_trainer.profiling_context = lambda *_args: nullcontext()
    overlong = get_soft_overlong_punishment(asked["overlong"]["max"], asked["overlong"]["soft"])
    texts = [[{"role": "assistant", "content": text}] for text in asked["texts"]]
    json.dump(
        {
            "combined": [combine(case) for case in asked["combine"]],
            "thinkFormat": think_format_reward(texts),
            "overlong": overlong([[0] * length for length in asked["overlong"]["lengths"]]),
            "python": [is_python(text) for text in asked["python"]],
            "expressions": [expression(text) for text in asked["expressions"]],
        },
        sys.stdout,
    )


main()

"""AdamW with moments in float32, by torch, or in 8 bits, by bitsandbytes (Dettmers et al., arXiv 2110.02861).

A moment in 8 bits is one of 256 levels times the largest of its block of 256. Tensors of fewer than 4,096 numbers keep
moments in float32: they take little, and are the more sensitive ones.
"""

from __future__ import annotations

from typing import Any

import torch

from hone_worker.base.bits import require_bitsandbytes
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.train.checkpoint import BLOCK, Moments
from hone_worker.train.step_data import OptimizerConfig

#: Numbers of a tensor from which on its moments are in 8 bits, as the library has it.
LEAST = 4096
#: The library's names of the two moments, and of the levels that each is made of.
_NAMES = (("exp_avg", "1", "dynamic"), ("exp_avg_sq", "2", "udynamic"))


def make_adamw(
    options: OptimizerConfig,
    parameters: dict[str, torch.Tensor],
    moments: Moments | None,
    paths: ComputePaths,
) -> torch.optim.Optimizer:
    """The optimizer that these options ask for, going on from these moments. They may be of the other kind."""
    given: dict[str, Any] = {
        "lr": options.learning_rate,
        "betas": (options.beta1, options.beta2),
        "eps": options.eps,
        "weight_decay": options.weight_decay,
    }
    if options.optimizer == "adamw_8bit":
        bitsandbytes = require_bitsandbytes('optimizer: "adamw_8bit"', "optimizer")
        packed = bitsandbytes.optim.AdamW8bit(list(parameters.values()), min_8bit_size=LEAST, **given)
        if moments is not None:
            _give_packed(packed, parameters, moments, bitsandbytes.functional)
        return packed
    fused = paths.optimizer == "fused"
    optimizer = torch.optim.AdamW(
        list(parameters.values()), foreach=paths.optimizer == "foreach", fused=fused, **given
    )
    if moments is None:
        return optimizer
    for name, parameter in parameters.items():
        optimizer.state[parameter] = {
            # One kernel for all tensors reads its count where they are.
            "step": torch.tensor(float(moments.updates), device=parameter.device if fused else "cpu"),
            "exp_avg": _plain(moments.exp_avg[name], moments.scales.get(f"{name}.exp_avg"), "dynamic"),
            "exp_avg_sq": _plain(
                moments.exp_avg_sq[name], moments.scales.get(f"{name}.exp_avg_sq"), "udynamic"
            ),
        }
    return optimizer


def moments_of(optimizer: torch.optim.Optimizer, parameters: dict[str, torch.Tensor]) -> Moments:
    state = {name: optimizer.state[parameter] for name, parameter in parameters.items()}
    updates = int(next(iter(state.values()))["step"])
    if isinstance(optimizer, torch.optim.AdamW):
        return Moments(
            updates,
            {name: values["exp_avg"] for name, values in state.items()},
            {name: values["exp_avg_sq"] for name, values in state.items()},
        )
    return Moments(
        updates,
        {name: values["state1"] for name, values in state.items()},
        {name: values["state2"] for name, values in state.items()},
        {
            f"{name}.{moment}": values[f"absmax{number}"]
            for name, values in state.items()
            for moment, number, _ in _NAMES
            if values[f"state{number}"].dtype == torch.uint8
        },
    )


def _give_packed(
    optimizer: Any, parameters: dict[str, torch.Tensor], moments: Moments, functional: Any
) -> None:
    for name, parameter in parameters.items():
        state: dict[str, Any] = {"step": moments.updates}
        for moment, number, levels in _NAMES:
            held = getattr(moments, moment)[name]
            scale = moments.scales.get(f"{name}.{moment}")
            if parameter.numel() < LEAST:
                state[f"state{number}"] = _plain(held, scale, levels)
                continue
            code = optimizer.name2qmap[levels] = optimizer.name2qmap[levels].to(parameter.device)
            if scale is None:
                held, found = functional.quantize_blockwise(held, code=code, blocksize=BLOCK)
                scale = found.absmax
            state |= {f"state{number}": held, f"absmax{number}": scale, f"qmap{number}": code}
        optimizer.state[parameter] = state


def _plain(held: torch.Tensor, scale: torch.Tensor | None, levels: str) -> torch.Tensor:
    """A moment in float32, whichever way it is held."""
    if scale is None:
        return held
    functional = require_bitsandbytes("A policy whose moments are in 8 bits", "optimizer").functional
    code = functional.create_dynamic_map(signed=levels == "dynamic").to(held.device)
    found: torch.Tensor = functional.dequantize_blockwise(held, absmax=scale, code=code, blocksize=BLOCK)
    return found

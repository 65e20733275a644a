"""A loop with Tinker's own client. Reads what it needs from stdin as JSON; the last line that it prints is JSON too."""

import json
import sys

import tinker
from tinker import types

given = json.load(sys.stdin)
service = tinker.ServiceClient(base_url=given["url"] + "/tinker", api_key="tml-" + given["key"])
training = service.create_lora_training_client(
    base_model=given["base"], rank=8, seed=3, user_metadata={"hone_model": "via-tinker"}
).result()
out: dict[str, object] = {"model_id": training.model_id, "rank": training.get_info().lora_rank}


def text(ids: list[int]) -> types.ModelInput:
    return types.ModelInput.from_ints(ids)


def datum(ids: list[int], **inputs: list[float]) -> types.Datum:
    return types.Datum(model_input=text(ids[:-1]), loss_fn_inputs={"target_tokens": ids[1:], **inputs})


# Supervised: all calls are on their way before the first has ended.
data = [datum(ids, weights=[1.0] * (len(ids) - 1)) for ids in given["texts"]]
adam = types.AdamParams(learning_rate=3e-3)
calls = []
for _ in range(6):
    # Two calls for one step.
    parts = [training.forward_backward([one], "cross_entropy") for one in data]
    calls.append((parts, training.optim_step(adam)))
sampler_future = training.save_weights_and_get_sampling_client()
out["losses"] = [sum(part.result().metrics["loss:sum"] for part in parts) for parts, _ in calls]
out["steps"] = [step.result().metrics["step"] for _, step in calls]

# What is sampled has the logprobs that forward gives.
sampler = sampler_future.result()
prompt = given["texts"][0][:3]
params = types.SamplingParams(max_tokens=8, temperature=1.0, seed=1)
sampled = sampler.sample(
    text(prompt), 3, params, include_prompt_logprobs=True, topk_sample_logprobs=2
).result()
out["sampled"] = [
    {"ids": list(one.tokens), "logprobs": one.logprobs, "stop": one.stop_reason, "top": one.topk_logprobs}
    for one in sampled.sequences
]
out["prompt_logprobs"] = sampled.prompt_logprobs
sequences = [prompt + list(one.tokens) for one in sampled.sequences]
forward = training.forward([datum(ids) for ids in sequences], "cross_entropy").result()
out["forward"] = [one["logprobs"].tolist() for one in forward.loss_fn_outputs]

# Reinforcement: the first answer was good, the others were not.
rl = [
    datum(
        ids,
        logprobs=[0.0] * (len(prompt) - 1) + list(one.logprobs or []),
        advantages=[0.0] * (len(prompt) - 1) + [1.0 if at == 0 else -0.5] * len(one.tokens),
    )
    for at, (ids, one) in enumerate(zip(sequences, sampled.sequences, strict=True))
]
passed = training.forward_backward(rl, "ppo", {"clip_low_threshold": 0.7, "clip_high_threshold": 1.3})
step = training.optim_step(adam)
out["ppo"] = passed.result().metrics
out["after_ppo"] = step.result().metrics["step"]
after = training.forward([datum(sequences[0])], "cross_entropy").result()
out["after"] = after.loss_fn_outputs[0]["logprobs"].tolist()

# Saved, and asked by its path; and the bare base.
saved = training.save_state("the-last").result()
out["path"] = saved.path
out["of_path"] = service.create_sampling_client(model_path=saved.path).result().compute_logprobs(text(sequences[0])).result()
out["of_base"] = service.create_sampling_client(base_model=given["base"]).result().compute_logprobs(text(prompt)).result()

# What does not fit is refused by name.
refused = {}


def refuse(name: str, call) -> None:
    try:
        call()
        refused[name] = None
    except Exception as error:  # noqa: BLE001
        refused[name] = f"{type(error).__name__}: {error}"


refuse("no_gradient", lambda: training.optim_step(adam).result())
refuse("loss", lambda: training.forward_backward(data, "gspo").result())
refuse("option", lambda: training.forward_backward(data, "cross_entropy", {"beta": 1.0}).result())
refuse("top_k", lambda: sampler.sample(text(prompt), 1, types.SamplingParams(max_tokens=1, top_k=5)).result())
refuse("ttl", lambda: training.save_state("x", ttl_seconds=3600).result())
refuse("base", lambda: service.create_lora_training_client(base_model="another/base").result())
refuse("state", lambda: service.create_training_client_from_state(saved.path).result())
out["refused"] = refused
service.close("success").result()
print(json.dumps(out))

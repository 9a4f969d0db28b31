"""tensorboard_read.py RUN_DIR: reads a run's event files with TensorBoard itself and compares them with metrics.jsonl.

Exits with 77 where the package is not installed."""
import json
import sys

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    print(f"skipped: the Python package tensorboard is not installed ({error})")
    sys.exit(77)

NAMES = {
    "train/loss": "loss", "train/lr": "lr", "train/grad_norm": "grad_norm", "eval/held_out_loss": "held_out_loss",
    "gain/forward": "gain_forward", "gain/backward": "gain_backward", "gain/worst_forward": "worst_gain_forward",
    "gain/worst_backward": "worst_gain_backward", "speed/tokens_per_s": "tokens_per_s", "speed/ms_per_step": "ms_per_step",
    "speed/bubble": "bubble", "speed/flops_per_s": "flops_per_s", "memory/peak_bytes": "peak_bytes",
    "energy/gpu_j": "energy_gpu_j", "energy/cpu_j": "energy_cpu_j", "energy/j_per_token": "j_per_token",
}

run = sys.argv[1]
with open(f"{run}/metrics.jsonl") as file:
    lines = [json.loads(line) for line in file]
board = EventAccumulator(f"{run}/tensorboard", size_guidance={"scalars": 0})
board.Reload()
tags = board.Tags()["scalars"]
unknown = set(tags) - set(NAMES)
assert not unknown, f"tags without a metric: {unknown}"
compared = 0
for tag, key in NAMES.items():
    expected = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    found = [(event.step, event.value) for event in board.Scalars(tag)] if tag in tags else []
    assert [step for step, _ in found] == [step for step, _ in expected], f"{tag}: steps {found}, expected {expected}"
    for (step, value), (_, wanted) in zip(found, expected):
        assert abs(value - wanted) <= 1e-6 * abs(wanted), f"{tag}, step {step}: {value}, expected {wanted}"
        compared += 1
assert compared >= 12 * len(lines), f"only {compared} values in {len(lines)} steps"
print(f"{compared} values of {len(lines)} steps are those of metrics.jsonl")

#!/usr/bin/env python3
"""llama_logits.py MODEL_LOGITS DIR: a residual model's folder must be a Llama in Hugging Face's transformers, with the same logits.

Needs torch and transformers (PyPI). MODEL_LOGITS is build/tests/bench/model_logits; exit status 1 if the logits differ by more than
1e-4 of their norm."""
import subprocess
import sys
import tempfile

import torch
from transformers import LlamaForCausalLM

LENGTH = 64


def main():
    program, folder = sys.argv[1:]
    model, info = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        sys.exit(f"not the tensors of a Llama: {info}")
    vocabulary = model.config.vocab_size
    tokens = torch.tensor([[(7 * t + 3) % vocabulary for t in range(LENGTH)]])
    with torch.no_grad():
        theirs = model(tokens).logits[0].double()
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run([program, folder, str(LENGTH), file.name], check=True)
        data = bytearray(open(file.name, "rb").read())
    ours = torch.frombuffer(data, dtype=torch.float32).reshape(LENGTH, vocabulary).double()
    error = ((ours - theirs).norm() / theirs.norm()).item()
    print(f"logits of {LENGTH} tokens: relative difference {error:.2e}, largest {(ours - theirs).abs().max().item():.2e}")
    sys.exit(0 if error < 1e-4 else 1)


main()

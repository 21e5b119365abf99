"""Our language model encoder against transformers' whole model, in one process, alternating, with the same weights.

    uv run benchmarks/textenc.py --out benchmarks/results/textenc-cpu.json

Plain transformers runs every layer, keeps every hidden state and picks the third last, as diffusers' pipeline does;
ours has neither the last two layers nor their states. The model has the released depth, 32 layers, and a width that a
CPU can do; weights are random. Memory of the work is that of what it allocates, counted by an allocator-level trace;
memory of the weights is their size.

Shapes: B batch, S text tokens, D width.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from compare import compare, show
from hy_textenc import TEMPLATES, MLLMEncoder
from hy_textenc.testing import write_llama, write_llama_tokenizer
from hy_textenc.tokens import tokenize
from machine import machine
from torch import Tensor, nn
from transformers import LlamaModel

PROMPT = "A red ball rolls slowly over a wooden table and falls down at its left end; the camera follows it."
LAYERS = 32


def main() -> None:
    """Run the cases and write the figures."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    size = {"hidden_size": arguments.width, "intermediate_size": 7 * arguments.width // 2, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": arguments.width // 64, "num_key_value_heads": arguments.width // 256 or 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_llama(path, write_llama_tokenizer(path), **size, **heads)
        ours, theirs = MLLMEncoder(path, offload="none").load(), LlamaModel.from_pretrained(path).eval()
        results = [_measure(ours, theirs, batch, arguments.pairs) for batch in arguments.batch]
    report = {"machine": machine(), "model": {**size, **heads}, "results": results}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show("hy-textenc / transformers", ("batch", "tokens", "time_ratio", "memory_ratio", "weights_ratio"), report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--width", type=int, default=512, help="of the model, a multiple of 64 (default: %(default)s)")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4], help="prompts at once (default: 1 and 4)")
    parser.add_argument("--pairs", type=int, default=7, help="of runs, after one to warm up (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser


def _measure(ours: MLLMEncoder, theirs: LlamaModel, batch: int, pairs: int) -> dict[str, Any]:
    framing, prompts = ours.framing, [PROMPT] * batch

    @torch.no_grad()
    def whole() -> Tensor:
        tokens = tokenize(ours.tokenizer, [TEMPLATES["video"].around(prompt) for prompt in prompts], framing.length)
        inputs = {"input_ids": tokens.ids_BS, "attention_mask": tokens.mask_BS.long()}
        states = theirs(**inputs, use_cache=False, output_hidden_states=True).hidden_states
        return states[-3][:, framing.crop_start :].contiguous()

    torch.testing.assert_close(ours.encode(prompts).tokens_BSD, whole(), rtol=0, atol=1e-6)
    measured = compare(lambda: ours.encode(prompts), whole, pairs)
    figures = {name.replace("diffusers", "transformers"): value for name, value in measured.items()}
    ratio = round(_bytes(ours) / _bytes(theirs), 3)
    return {"batch": batch, "tokens": framing.length, **figures, "weights_ratio": ratio}


def _bytes(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


if __name__ == "__main__":
    main()

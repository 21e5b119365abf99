"""Two processes train as one does that accumulates two batches, and skip the same steps."""

import json
import subprocess
import sys

import torch

SCRIPT = """
import sys
import torch
from functools import partial
from hy_dit import DiT, DiTConfig
from hy_flow.lightning import EMA, FlowMatching, SkipNonFinite, Throughput
from hy_plugins import TextTokens
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

processes, folder = int(sys.argv[1]), sys.argv[2]


class TextEncoder:
    def encode(self, prompts):
        tokens_BSD = torch.tensor([[[float(len(prompt))] * 8] * 2 for prompt in prompts])
        return TextTokens(tokens_BSD, torch.ones(tokens_BSD.shape[:2], dtype=torch.bool), tokens_BSD[:, 0])


class Batches(torch.utils.data.IterableDataset):
    def __iter__(self):
        rank = trainer.global_rank
        for number in range(rank, 8, processes):
            latent = torch.randn(2, 4, 1, 4, 4, generator=torch.Generator().manual_seed(number))
            if number == 5:
                latent[0] = float("nan")
            keys = [f"{number}.0", f"{number}.1"]
            yield {"latent_BCTHW": latent, "captions": ["a", "bc"], "number": number, "keys": keys}


config = DiTConfig(
    in_channels=4, out_channels=4, width=16, heads=2, mlp_ratio=2.0, double_blocks=1, single_blocks=1,
    rope_axes=(4, 2, 2), rope_theta=256.0, patch=(1, 2, 2), text_width=8, pooled_width=8, guidance_embed=False,
)
torch.manual_seed(0)
module = FlowMatching(
    DiT(config), TextEncoder(), optimizer=partial(torch.optim.SGD, lr=0.1), warmup_steps=0, decay="constant"
)
trainer = Trainer(
    accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", max_steps=4,
    accumulate_grad_batches=2 // processes, gradient_clip_val=1.0, log_every_n_steps=2, default_root_dir=folder,
    logger=CSVLogger(folder, name="", version=""), enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, callbacks=[EMA(0.5), SkipNonFinite(), Throughput()],
)
trainer.fit(module, torch.utils.data.DataLoader(Batches(), batch_size=None))
if trainer.global_rank == 0:
    torch.save(module.state_dict(), f"{folder}/weights.pt")
"""


def test_two_processes_train_as_one_that_accumulates(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    weights, losses = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        subprocess.run([sys.executable, str(script), str(processes), str(folder)], check=True, timeout=240)
        weights.append(torch.load(folder / "weights.pt", weights_only=True))
        header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
        steps = [dict(zip(header, row, strict=True)) for row in rows]
        losses.append([float(row["train/loss_sigma_0.25-0.50"]) for row in steps if row["train/loss_sigma_0.25-0.50"]])
        tokens = [float(row["throughput/tokens_per_s"]) for row in steps if row["throughput/tokens_per_s"]]
        assert len(tokens) == 2
        assert min(tokens) > 0
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-4, atol=1e-5)

    found = [json.loads((tmp_path / "2" / f"skipped-steps-{rank}.jsonl").read_text()) for rank in (0, 1)]
    assert [line["step"] for line in found] == [2, 2]
    assert [line["batches"][0]["keys"] for line in found] == [["4.0", "4.1"], ["5.0", "5.1"]]
    assert [line["batches"][0]["loss"] == "nan" for line in found] == [False, True]

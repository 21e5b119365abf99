"""Two real processes train on what one does, and one goes on with what two began."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("lightning", reason="needs the extra train")
pytest.importorskip("torch", reason="needs the extra train")

from hy_data.world_packing import pack_world

SCRIPT = """
import json, sys, lightning, torch
from hy_data.curriculum import Stage
from hy_data.lightning import BucketedShards, Promotion
from lightning.pytorch.callbacks import ModelCheckpoint

class Record(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []
    def training_step(self, batch, index):
        self.seen.append([batch["number"], batch["keys"], float(batch["video_BCTHW"].sum())])
        return self.weight * batch["video_BCTHW"].mean()
    def validation_step(self, batch, index):
        self.log("val/loss", 5.0 + self.global_rank, batch_size=1)  # not the same on the ranks
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

folder, ranks, steps, checkpoint, out = sys.argv[1:]
ranks, steps, checkpoint = int(ranks), int(steps), checkpoint or None
stages = [
    Stage(name="images", scales=[16], aspects=[1.0], batch_size=3, patience=1),
    Stage(name="mixed", scales=[16, 32], aspects=[1.0], frames=[5], batch_size=2),
]
data = BucketedShards(folder, stages, steps=steps, held_out=0.43)
saved = ModelCheckpoint(dirpath=f"{out}-saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
trainer = lightning.Trainer(
    max_epochs=3, accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", logger=False,
    enable_progress_bar=False, callbacks=[Promotion("val/loss", "min"), saved], default_root_dir=folder,
)
module = Record()
trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
with open(f"{out}-{trainer.global_rank}.json", "w") as file:
    json.dump(module.seen, file)
"""


def train(folder, ranks, steps, out, checkpoint=""):
    arguments = [str(folder / "world"), str(ranks), str(steps), str(checkpoint), str(folder / out)]
    (folder / "train.py").write_text(SCRIPT)
    subprocess.run([sys.executable, str(folder / "train.py"), *arguments], check=True, timeout=280)
    found = [json.loads((folder / f"{out}-{rank}.json").read_text()) for rank in range(ranks)]
    return sorted(batch for seen in found for batch in seen)


@pytest.mark.slow
def test_ranks_share_what_one_process_sees(tmp_path):
    pack_world(tmp_path / "world", 6, size=(32, 32), frames=6)
    alone, shared = train(tmp_path, 1, 4, "one"), train(tmp_path, 2, 2, "two")
    assert shared == alone
    assert [number for number, *_ in alone] == list(range(12))
    resumed = train(tmp_path, 1, 2, "resumed", tmp_path / "two-saved" / "step=3.ckpt")
    assert resumed[0] == alone[6]

"""Fine-tuning a rewriter on collected pairs, with LoRA (paper section 4.6). Needs the extra `train`."""

from hy_rewrite.lightning.pairs import PairsData
from hy_rewrite.lightning.publish import PublishAdapter
from hy_rewrite.lightning.training import RewriterTraining

__all__ = ["PairsData", "PublishAdapter", "RewriterTraining"]

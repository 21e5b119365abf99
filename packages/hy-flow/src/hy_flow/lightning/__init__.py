"""Training with Lightning: the objective as a module, and the callbacks that go with it. Needs the extra `train`."""

from hy_flow.lightning.averaging import EMA, averaged
from hy_flow.lightning.batch import TrainingBatch
from hy_flow.lightning.module import FlowMatching
from hy_flow.lightning.non_finite import SkipNonFinite
from hy_flow.lightning.throughput import Throughput
from hy_flow.lightning.unfreezing import Unfreezing

__all__ = ["EMA", "FlowMatching", "SkipNonFinite", "Throughput", "TrainingBatch", "Unfreezing", "averaged"]

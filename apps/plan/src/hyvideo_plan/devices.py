"""Devices by name: memory and peak rate from their data sheets, and the share of the peak that is assumed."""

from dataclasses import dataclass

from hyvideo_plan.errors import PlanError

GB = 10**9
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device.

    Attributes:
        name: as the user calls it.
        memory: bytes.
        peak: dense bfloat16 operations per second, by the data sheet.
        share: of the peak that a run is assumed to reach.
        source: where the share comes from.
    """

    name: str
    memory: int
    peak: float
    share: float
    source: str

    @property
    def rate(self) -> float:
        """Operations per second that are assumed."""
        return self.peak * self.share


_ASSUMED = "assumed, as on an H100"
_OFFICIAL = "measured by others: the official 720p run of 1904 s on one H100"

DEVICES = {
    device.name: device
    for device in (
        Device(name="h100", memory=80 * GIB, peak=989e12, share=0.32, source=_OFFICIAL),
        Device(name="h200", memory=141 * GB, peak=989e12, share=0.32, source=_ASSUMED),
        Device(name="a100", memory=80 * GIB, peak=312e12, share=0.32, source=_ASSUMED),
        Device(name="a100-40gb", memory=40 * GIB, peak=312e12, share=0.32, source=_ASSUMED),
        Device(name="rtx4090", memory=24 * GIB, peak=165e12, share=0.32, source=_ASSUMED),
        Device(name="cpu", memory=16 * GIB, peak=0.2e12, share=0.5, source="assumed, for two cores in float32"),
    )
}


def find_device(name: str) -> Device:
    """Look a device up.

    Raises:
        PlanError: it is not in the table; lists those that are.
    """
    if name not in DEVICES:
        known = ", ".join(DEVICES)
        raise PlanError(f"no device '{name}' in the table ({known}); give --tflops and --memory instead")
    return DEVICES[name]

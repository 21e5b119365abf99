import subprocess
import sys

import hy_parallel
import pytest


def test_listing_components_imports_no_torch():
    code = "import sys, hy_parallel.plugin; list(hy_parallel.plugin.hy_components()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_are_there_and_others_are_not():
    assert all(getattr(hy_parallel, name).__name__ == name for name in hy_parallel.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Offload'"):
        _ = hy_parallel.Offload

"""Where the package does not run it says so when it is imported, before anything of another system is missed."""

import subprocess
import sys


def test_windows_is_refused() -> None:
    script = "import os; os.name = 'nt'; import cascaded_dllm"
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert result.returncode == 1
    assert "ImportError: cascaded-dllm needs signals that only Linux and macOS have; on Windows" in result.stderr

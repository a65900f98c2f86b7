"""Builds the wheel, installs it without its dependencies into an empty folder, and uses it outside the checkout.

The environment has to hold the dependencies. Nothing of the checkout is on the path of what is started here.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USE = """
import numpy, keras_mixers
assert keras_mixers.__file__.startswith({folder!r}), keras_mixers.__file__
model = keras_mixers.create_model("splitmixer_iii_256_8_s4")
assert model.predict(numpy.zeros((1, 32, 32, 3), "float32"), verbose=0).shape == (1, 10)
"""


def main() -> None:
    """Builds and uses the wheel; raises where something is missing."""
    with tempfile.TemporaryDirectory() as folder:
        site, dist = Path(folder, "site"), Path(folder, "dist")
        wheel = build_wheel(dist)
        names = set(zipfile.ZipFile(wheel).namelist())
        expected = {
            str(path.relative_to(ROOT))
            for pattern in ("*.py", "*.safetensors", "py.typed")
            for path in (ROOT / "keras_mixers").rglob(pattern)
        }
        held = {name for name in names if name.startswith("keras_mixers/")}
        assert expected == held, f"The wheel lacks or adds {sorted(expected ^ held)}."
        foreign = {name.split("/")[0] for name in names} - {"keras_mixers", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
        assert not foreign, f"The wheel holds {sorted(foreign)} too."
        call([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel])
        environment = {**os.environ, "PYTHONPATH": str(site)}
        call([sys.executable, "-c", USE.format(folder=str(site))], cwd=folder, env=environment)
        script = [sys.executable, str(site / "bin" / "keras-mixers")]
        listed = call([*script, "list", "splitmixer_v*"], cwd=folder, env=environment)
        assert "splitmixer_v_256_8_r3_5" in listed, listed
        print(f"{wheel.name}: {len(expected)} files, used outside the checkout")


def build_wheel(folder: Path) -> Path:
    """Builds the wheel of the checkout in a folder, and returns its path."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would add what an earlier state had
    call([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT])
    (wheel,) = folder.glob("*.whl")
    return wheel


def call(command: list[object], **options: object) -> str:
    """Runs a command, and returns what it prints; raises, with that, if it fails."""
    result = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    if result.returncode:
        raise RuntimeError(f"{command} ended with {result.returncode}:\n{result.stdout}")
    return result.stdout


if __name__ == "__main__":
    main()

"""Builds the wheel, installs it without its dependencies into an empty folder, and uses it outside the checkout.

The environment has to hold the dependencies. Nothing of the checkout is on the path of what is started here.
"""

import os
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
        call([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", dist, ROOT])
        (wheel,) = dist.glob("*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        expected = {
            str(path.relative_to(ROOT))
            for pattern in ("*.py", "*.safetensors", "py.typed")
            for path in (ROOT / "keras_mixers").rglob(pattern)
        }
        assert expected <= names, f"The wheel lacks {sorted(expected - names)}."
        foreign = {name.split("/")[0] for name in names} - {"keras_mixers", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
        assert not foreign, f"The wheel holds {sorted(foreign)} too."
        call([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel])
        environment = {**os.environ, "PYTHONPATH": str(site)}
        call([sys.executable, "-c", USE.format(folder=str(site))], cwd=folder, env=environment)
        script = [sys.executable, str(site / "bin" / "keras-mixers")]
        listed = call([*script, "list", "splitmixer_v*"], cwd=folder, env=environment)
        assert "splitmixer_v_256_8_r3_5" in listed, listed
        print(f"{wheel.name}: {len(expected)} files, used outside the checkout")


def call(command: list[object], **options: object) -> str:
    """Runs a command, and returns what it prints."""
    return subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True, **options).stdout


if __name__ == "__main__":
    main()

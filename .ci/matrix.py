"""Tests the package with other versions of Python, Keras and the backends, and keeps a row of each in docs/versions.md.

    python .ci/matrix.py                    # all rows
    python .ci/matrix.py --only oldest --backend jax
    python .ci/matrix.py --only oldest --backend torch --smoke   # what CI does

A row is a fresh environment with the wheel and the extra of one backend. `pip check`, .ci/smoke.py and the tests in
which versions have a part run outside the checkout. Interpreters are looked for as python3.11 and so on.
"""

import argparse
import datetime
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from check_wheel import build_wheel, call

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "versions.md"
CONSTRAINTS = {
    "oldest": ROOT / ".ci" / "versions" / "oldest.txt",
    "colab": ROOT / ".ci" / "versions" / "colab.txt",
    "newest": ROOT / ".ci" / "versions" / "newest.txt",
}
ROWS = [
    ("oldest", "3.11", "jax"), ("oldest", "3.11", "tensorflow"), ("oldest", "3.11", "torch"),
    ("colab", "3.13", "jax"), ("colab", "3.13", "tensorflow"), ("colab", "3.13", "torch"),
    ("newest", "3.12", "jax"), ("newest", "3.12", "tensorflow"), ("newest", "3.11", "torch"),
    ("newest", "3.13", "jax"), ("newest", "3.13", "tensorflow"), ("newest", "3.13", "torch"),
]  # fmt: skip
# What the tests import beside the package, and the tests: those of networks, with no other backend than the row's.
TOOLS = ["pytest", "pillow", "scikit-learn"]
TESTS = [
    "layers/test_spatial_mixers.py", "layers/test_patch_embed.py", "layers/test_normalize_pixels.py",
    "layers/test_quantization.py", "layers/test_validation.py", "models/test_network.py", "models/test_presets.py",
    "models/test_features.py", "models/test_isotropic.py", "training/test_muon.py", "training/test_schedule.py",
]  # fmt: skip
HEADER = "| versions | Python | backend | Keras | NumPy | tests | on |\n| --- | --- | --- | --- | --- | --- | --- |\n"


def main() -> int:
    """Carries out the rows, and returns how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CONSTRAINTS)
    parser.add_argument("--python", choices=sorted({python for _, python, _ in ROWS}))
    parser.add_argument("--backend", choices=["jax", "tensorflow", "torch"])
    parser.add_argument("--smoke", action="store_true", help="no tests, and no row")
    arguments = parser.parse_args()
    wanted = (arguments.only, arguments.python, arguments.backend)
    rows = [row for row in ROWS if all(want in (None, have) for want, have in zip(wanted, row, strict=True))]
    if not rows:
        parser.error(f"no row has {wanted}")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for row in rows:
            interpreter = shutil.which(f"python{row[1]}")
            if interpreter is None:
                print(*row, "not run: there is no such Python here", flush=True)
                continue
            try:
                found = carry_out(row, wheel, interpreter, arguments.smoke)
            except RuntimeError as error:
                found, failed = f"failed: {str(error)[-2000:]}", failed + 1
            print(*row, found, flush=True)
            if not arguments.smoke and not found.startswith("failed"):
                keep(row, found)
    return failed


def carry_out(row: tuple[str, str, str], wheel: Path, interpreter: str, smoke: bool) -> str:
    """Tests one row; returns what the page says of it: the versions and the tests' summary."""
    versions, _, backend = row
    with tempfile.TemporaryDirectory() as folder:
        call([interpreter, "-m", "venv", folder])
        python = Path(folder, "bin", "python")
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS[versions]]
        call([*install, f"{wheel}[{backend}]"])
        environment = {**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        shutil.copy(ROOT / ".ci" / "smoke.py", folder)
        summary = call([python, "smoke.py"], cwd=folder, env=environment).strip().splitlines()[-1]
        call([python, "-m", "pip", "check"])
        if smoke:
            return summary
        call([*install, *TOOLS])
        shutil.copytree(ROOT / "tests", Path(folder, "tests"))
        shutil.copy(ROOT / "README.md", folder)  # whose tables are tested
        Path(folder, "pytest.ini").write_text("[pytest]\nmarkers =\n    backend_independent:\n    checkpoints:\n")
        tests = [f"tests/{test}" for test in TESTS]
        result = call([python, "-m", "pytest", "-q", "-W", "ignore", *tests], cwd=folder, env=environment)
        name = f"import importlib.metadata as m; print(m.version('keras'), m.version('numpy'), {_version(backend)})"
        keras, numpy, own = call([python, "-c", name]).split()
        counts = re.findall(r"\d+ (?:passed|skipped)", result.strip().splitlines()[-1])
        return f"{backend} {own} | {keras} | {numpy} | smoke, {', '.join(counts)}"


def _version(backend: str) -> str:
    names = ["tensorflow-cpu", "tensorflow"] if backend == "tensorflow" else [backend]
    return f"next(d.version for n in {names} for d in m.distributions(name=n))"


def keep(row: tuple[str, str, str], found: str) -> None:
    """Writes a row into the page, in the place of the one that it had."""
    text = PAGE.read_text()
    start, _, kept = text.partition(HEADER)
    versions, python, backend = row
    lines = [line for line in kept.splitlines() if not line.startswith(f"| {versions} | {python} | {backend} ")]
    lines.append(f"| {versions} | {python} | {found} | {datetime.date.today()} |")
    order = {f"| {a} | {b} | {c} ": i for i, (a, b, c) in enumerate(ROWS)}
    lines.sort(key=lambda line: next((i for start, i in order.items() if line.startswith(start)), len(order)))
    PAGE.write_text(start + HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())

"""Makes documents: `python docs/scripts` lists what there is, `python docs/scripts all` makes what it can.

    python docs/scripts
    python docs/scripts all --data-dir ~/tensorflow_datasets --networks runs/a/model.keras runs/b/model.keras
    python docs/scripts commands litert

Each script is a program of its own beside this file, and is run as one. `all` names and leaves out the scripts whose
needs are not given.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class Script:
    """What a script makes, and which of the options below it needs; it is given them in this order."""

    makes: str
    needs: tuple[str, ...] = ()


TABLE = {
    "commands": Script("docs/commands.md"),
    "agreement_with_pytorch": Script("docs/agreement.md"),
    "agreement_in_training": Script("docs/results/agreement_in_training.csv", ("data_dir",)),
    "recipe_ablation": Script(
        "docs/results/recipe_ablation.csv, recipe_rates.csv and the tables of docs/training.md", ("data_dir",)
    ),
    "imagenette": Script("docs/results/imagenette.csv", ("photographs",)),
    "figures": Script("docs/figures/*.png, of the first network", ("network",)),
    "exports": Script("docs/results/export.csv", ("data_dir", "networks")),
    "litert": Script("docs/results/litert.csv"),
    "depthwise": Script("docs/benchmarks/depthwise.csv, of this backend"),
    "gpu_compile": Script("docs/benchmarks/gpu_compile.csv, on JAX with its plugin for CUDA"),
    "processes": Script("docs/benchmarks/processes.csv, on PyTorch"),
    "benchmark_plots": Script("docs/benchmarks/*.png"),
}


def command(name: str, options: argparse.Namespace) -> list[str]:
    """Returns the command line of a script, or raises a ValueError that names what it needs."""
    given = {
        "data_dir": ["--data-dir", options.data_dir] if options.data_dir else [],
        "networks": options.networks,
        "network": options.networks[:1],
        "photographs": [options.photographs] if options.photographs else [],
    }
    missing = [need for need in TABLE[name].needs if not given[need]]
    if missing:
        raise ValueError(f"{name} needs {' and '.join('--' + _option(need) for need in missing)}.")
    return [sys.executable, str(SCRIPTS / f"{name}.py"), *(part for need in TABLE[name].needs for part in given[need])]


def main() -> int:
    """Lists scripts, or runs them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="scripts to run, or all (default: list them)")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where TensorFlow Datasets keeps CIFAR-10")
    parser.add_argument("--networks", nargs="+", default=[], metavar="MODEL.keras", help="trained networks")
    parser.add_argument("--photographs", metavar="FOLDER", help="imagenette_mini")
    options = parser.parse_args()
    if not options.names:
        for name, script in TABLE.items():
            needs = ", ".join(f"--{_option(need)}" for need in script.needs)
            print(f"{name}: {script.makes}{f' (needs {needs})' if needs else ''}")
        return 0
    if unknown := [name for name in options.names if name not in {*TABLE, "all"}]:
        parser.error(f"there is no script named {unknown[0]!r}; there are {', '.join(TABLE)}")
    status = 0
    for name in TABLE if "all" in options.names else options.names:
        try:
            line = command(name, options)
        except ValueError as error:
            print(f"Left out: {error}", file=sys.stderr)
            status = status if "all" in options.names else 2
            continue
        print(*line, flush=True)
        status = subprocess.run(line, check=False).returncode or status
    return status


def _option(need: str) -> str:
    return {"network": "networks"}.get(need, need).replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())

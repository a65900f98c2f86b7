"""What XLA makes of our networks and of plain Keras's for an H200, on a machine without a GPU.

    pip install --no-deps jax-cuda12-plugin==JAX jax-cuda12-pjrt==JAX    # JAX: its installed version
    KERAS_BACKEND=jax JAX_PLATFORMS=cpu python docs/scripts/gpu_compile.py

compiles each network of `NETWORKS`, in inference and as a whole training step, writes what it reads in the executables
to docs/benchmarks/gpu_compile.csv and prints it as a table, without a driver. What is counted: kernels, the bytes that
they read and write (every operand and result once), the memory for intermediate results, and copies and transposes of
feature maps. Traffic over bandwidth is a lower bound of the time. What it is not: a measurement. A kernel may take
longer than its traffic, and cuDNN and cuBLAS choose their algorithms, with scratch memory of their own, on the device.

    KERAS_BACKEND=jax JAX_PLATFORMS=cpu python docs/scripts/gpu_compile.py --devices 2 8

compiles training steps that so many GPUs share, and writes what these exchange to docs/benchmarks/gpu_exchanges.csv.
"""

import argparse
import csv
import importlib.util
import math
import re
import sys
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_mixers import backends, create_model, get_preset
from keras_mixers.benchmark.peers import keras_network, sizes_of

H200 = Path(__file__).with_name("h200.txtpb")
BANDWIDTH = 4.8e12  # bytes per second
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CSV, EXCHANGES_CSV = BENCHMARKS / "gpu_compile.csv", BENCHMARKS / "gpu_exchanges.csv"
PLUGIN = "jax_cuda12_plugin"

# Networks with the sides of their images and the images of a batch.
NETWORKS = {
    "splitmixer_i_256_8": (32, 512),
    "convmixer_256_8_p2_k5": (32, 512),
    "convmixer_768_32": (224, 64),
    "convmixer_1536_20": (224, 64),
}
MODES = ("inference", "training")
PLAIN, OURS = "plain Keras", "ours"


@dataclass(frozen=True)
class Reading:
    """What an executable does.

    Attributes:
        kernels: operations that run on the GPU one after the other.
        traffic_gib: what they read and write.
        temporary_mib: the most that intermediate results take at once.
        layout_copies: copies and transposes of a whole feature map.
        loops: loops and branches, whose traffic is not counted.
    """

    kernels: int
    traffic_gib: float
    temporary_mib: float
    layout_copies: int
    loops: int

    @property
    def at_least_ms(self) -> float:
        """How long the traffic takes at full bandwidth."""
        return self.traffic_gib * 2**30 / BANDWIDTH * 1000


@dataclass(frozen=True)
class Exchanges:
    """What devices exchange in one training step.

    Attributes:
        all_reduces: how often they add arrays up.
        reduced: numbers in the arrays of all of these.
        reduced_kib: their size.
        all_gathers: how often they collect the others' arrays.
        gathered: numbers that each device then has of all of these.
        gathered_kib: their size.
        others: other exchanges.
    """

    all_reduces: int
    reduced: int
    reduced_kib: float
    all_gathers: int
    gathered: int
    gathered_kib: float
    others: int


def compile_for_gpu(
    function: Callable, *arguments: Any, devices: int = 1, batches: Container[int] = (), **options: Any
) -> jax.stages.Compiled:
    """Compiles a function for one H200, or for several of one machine.

    Args:
        function: of arrays, in any trees.
        *arguments: arrays or `jax.ShapeDtypeStruct`s, of which only shapes and dtypes are used.
        devices: number of GPUs.
        batches: numbers of the arguments that they share along the first axis; each has all of the others, as
            `keras.distribution.DataParallel` places them.
        **options: of `jax.jit`.
    """
    target = topologies.get_topology_desc(platform="cuda", target_config=H200.read_text(), topology=f"1x1x{devices}")
    whole = part = jax.sharding.SingleDeviceSharding(target.devices[0])
    if devices > 1:
        mesh = Mesh(np.array(target.devices), ("batch",))
        whole, part = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))

    def placed(argument: Any, place: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), argument)

    shapes = [placed(argument, part if i in batches else whole) for i, argument in enumerate(arguments)]
    with backends.assume_device("gpu"):
        return jax.jit(function, **options).lower(*shapes).compile()


def compile_network(model: keras.Model, batch: int, mode: str, devices: int = 1) -> jax.stages.Compiled:
    """Compiles inference, or a training step with AdamW that overwrites the network's state."""
    groups = [model.trainable_variables, model.non_trainable_variables]
    images = jax.ShapeDtypeStruct((batch, *model.input_shape[1:]), "float32")
    if mode == "inference":
        values = [[variable.value for variable in group] for group in groups]
        return compile_for_gpu(lambda *state: model.stateless_call(*state[:2], state[2])[0], *values, images)
    model.compile(keras.optimizers.AdamW(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    groups += [model.optimizer.variables, model.metrics_variables]
    state = tuple([variable.value for variable in group] for group in groups)
    labels = jax.ShapeDtypeStruct((batch,), "int32")
    shared = {"devices": devices, "batches": (1,)}
    return compile_for_gpu(model.train_step, state, (images, labels), donate_argnums=0, **shared)


def make_network(name: str, whose: str, blocks: int | None = None, dtype: str = "mixed_bfloat16") -> keras.Model:
    """Makes a network of the table, or with fewer blocks one of its kind, which is compiled sooner."""
    sizes, side = sizes_of(name), NETWORKS[name][0]
    if whose == PLAIN:
        return keras_network(replace(sizes, blocks=blocks or sizes.blocks), side, dtype)
    argument = get_preset(name).builder.blocks_argument
    options = {"input_shape": (side, side, 3), "data_format": "channels_last", "dtype": dtype}
    return create_model(name, **{argument: blocks or sizes.blocks}, **options)


# An instruction of XLA's text: name, shape or tuple of shapes, operation, operands and attributes.
INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
NO_KERNELS = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}


def read(executable: jax.stages.Compiled, feature_map: int) -> Reading:
    """Reads an executable; copies and transposes count if they are of `feature_map` bytes or more."""
    text = executable.as_text()
    sizes, kernels, traffic, loops = {}, 0, 0, 0
    for line in text[text.index("\nENTRY") :].splitlines():
        if found := INSTRUCTION.match(line):
            name, shape, operation, rest = found.groups()
            sizes[name] = _bytes(shape)
            if operation not in NO_KERNELS:
                kernels += 1
                loops += operation in ("while", "conditional", "call")
                operands = re.findall(r"%([\w.-]+)", rest.split("), ")[0])
                traffic += sizes[name] + sum(sizes.get(operand, 0) for operand in operands)
    everywhere = filter(None, map(INSTRUCTION.match, text.splitlines()))
    copies = sum(found[3] in ("copy", "transpose") and _bytes(found[2]) >= feature_map for found in everywhere)
    temporary = executable.memory_analysis().temp_size_in_bytes
    return Reading(kernels, round(traffic / 2**30, 2), round(temporary / 2**20), copies, loops)


def read_exchanges(executable: jax.stages.Compiled) -> Exchanges:
    """Reads what the devices of an executable exchange."""
    found = [match for match in map(INSTRUCTION.match, executable.as_text().splitlines()) if match]
    # What takes a while is two instructions, of which the second has the result.
    shapes = {name: [match[2] for match in found if match[3] in (name, f"{name}-done")] for name in COLLECTIVES}
    reduced, gathered, *others = shapes.values()
    of_both = []
    for each in (reduced, gathered):
        of_both += [len(each), sum(map(_numbers, each)), round(sum(map(_bytes, each)) / 2**10, 1)]
    return Exchanges(*of_both, sum(map(len, others)))


ARRAY = re.compile(r"([a-z]+)(\d*)\[([\d,]*)\]")


def _bytes(shape: str) -> int:
    return sum(_size(sides) * (1 if dtype == "pred" else int(bits) // 8) for dtype, bits, sides in ARRAY.findall(shape))


def _numbers(shape: str) -> int:
    return sum(_size(sides) for _, _, sides in ARRAY.findall(shape))


def _size(sides: str) -> int:
    return math.prod(int(side) for side in sides.split(",") if side)


def measure(name: str, mode: str, whose: str, blocks: int | None = None) -> Reading:
    """Compiles a network and reads it."""
    side, batch = NETWORKS[name]
    sizes = sizes_of(name)
    feature_map = batch * (side // sizes.patch_size) ** 2 * sizes.dim * 2
    keras.utils.clear_session(free_memory=True)
    return read(compile_network(make_network(name, whose, blocks), batch, mode), feature_map)


def exchanges(name: str, devices: int, blocks: int | None = None) -> dict[str, Any]:
    """Compiles our network's training step for several devices; returns a row of what they exchange."""
    keras.utils.clear_session(free_memory=True)
    model = make_network(name, OURS, blocks)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    # A norm's gradients for gamma and beta come from sums that the devices have exchanged already.
    others = sum(variable.value.size for variable in model.trainable_variables)
    others -= sum(variable.value.size for norm in norms for variable in norm.trainable_variables)
    found = read_exchanges(compile_network(model, NETWORKS[name][1], "training", devices))
    return {"network": name, "devices": devices, "norms": len(norms), "other_weights": others, **asdict(found)}


def exchange_table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows of exchanges as a table in Markdown."""
    lines = [
        "| network | GPUs | norms | all-reduces | KiB | all-gathers | KiB |",
        "| --- | " + " | ".join(["---:"] * 6) + " |",
    ]
    columns = ("devices", "norms", "all_reduces", "reduced_kib", "all_gathers", "gathered_kib")
    return "\n".join(
        [*lines, *(f"| `{row['network']}` | {' | '.join(str(row[c]) for c in columns)} |" for row in rows)]
    )


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows of the file as a table in Markdown: kernels / traffic / temporary memory, and their ratio."""
    lines = ["| network | mode | plain Keras | ours | traffic, ours to plain |", "| --- | --- | --- | --- | --- |"]
    both = {(row["network"], row["mode"], row["whose"]): row for row in rows}
    for network, mode in dict.fromkeys(key[:2] for key in both):
        plain, ours = (both[network, mode, whose] for whose in (PLAIN, OURS))
        cells = [f"{row['kernels']} / {row['traffic_gib']} / {row['temporary_mib']}" for row in (plain, ours)]
        ratio = float(ours["traffic_gib"]) / float(plain["traffic_gib"])
        lines.append(f"| `{network}` | {mode} | {cells[0]} | {cells[1]} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Compiles the networks, writes the file and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, metavar="NAME")
    parser.add_argument("--blocks", type=int, help="so many blocks instead of the network's own")
    parser.add_argument("--devices", type=int, nargs="+", help="what so many devices exchange in training, instead")
    parser.add_argument("--csv", type=Path, help=f"where to write it (default: {CSV.name} or {EXCHANGES_CSV.name})")
    options = parser.parse_args()
    if backends.NAME != "jax" or importlib.util.find_spec(PLUGIN) is None:
        version = f"{PLUGIN.replace('_', '-')}=={jax.__version__} jax-cuda12-pjrt=={jax.__version__}"
        parser.error(f"this needs KERAS_BACKEND=jax, and JAX's plugin for CUDA: pip install --no-deps {version}")
    rows = []
    if options.devices:
        for name in options.networks:
            for devices in options.devices:
                rows.append(exchanges(name, devices, options.blocks))
                print(*rows[-1].values(), file=sys.stderr, flush=True)
        write(options.csv or EXCHANGES_CSV, rows)
        print(exchange_table(rows))
        return
    for name in options.networks:
        for mode in MODES:
            for whose in (PLAIN, OURS):
                reading = measure(name, mode, whose, options.blocks)
                rows.append({"network": name, "mode": mode, "whose": whose, **asdict(reading)})
                print(*rows[-1].values(), f"{reading.at_least_ms:.2f} ms", file=sys.stderr, flush=True)
    write(options.csv or CSV, rows)
    print(table(rows))


if __name__ == "__main__":
    main()

"""What XLA makes of our networks and of plain Keras's for an H200, on a machine without a GPU.

    pip install --no-deps jax-cuda12-plugin==JAX jax-cuda12-pjrt==JAX    # JAX: its installed version
    KERAS_BACKEND=jax JAX_PLATFORMS=cpu python docs/scripts/gpu_compile.py

compiles each network of `NETWORKS`, in inference and as a whole training step, writes what it reads in the executables
to docs/benchmarks/gpu_compile.csv and prints it as a table, without a driver. What is counted: kernels, the bytes that
they read and write (every operand and result once), the memory for intermediate results, and copies and transposes of
feature maps. Traffic over bandwidth is a lower bound of the time. What it is not: a measurement. A kernel may take
longer than its traffic, and cuDNN and cuBLAS choose their algorithms, with scratch memory of their own, on the device.
"""

import argparse
import csv
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import keras
from jax.experimental import topologies

from keras_mixers import backends, create_model, get_preset
from keras_mixers.benchmark.peers import keras_network, sizes_of

H200 = Path(__file__).with_name("h200.txtpb")
BANDWIDTH = 4.8e12  # bytes per second
CSV = Path(__file__).parents[1] / "benchmarks" / "gpu_compile.csv"
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


def compile_for_gpu(function: Callable, *arguments: Any, **options: Any) -> jax.stages.Compiled:
    """Compiles a function for one H200.

    Args:
        function: of arrays, in any trees.
        *arguments: arrays or `jax.ShapeDtypeStruct`s, of which only shapes and dtypes are used.
        **options: of `jax.jit`.
    """
    target = topologies.get_topology_desc(platform="cuda", target_config=H200.read_text(), topology="1x1x1")
    device = jax.sharding.SingleDeviceSharding(target.devices[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), arguments)
    with backends.assume_device("gpu"):
        return jax.jit(function, **options).lower(*shapes).compile()


def compile_network(model: keras.Model, batch: int, mode: str) -> jax.stages.Compiled:
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
    return compile_for_gpu(model.train_step, state, (images, labels), donate_argnums=0)


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


def _bytes(shape: str) -> int:
    total = 0
    for dtype, bits, sides in re.findall(r"([a-z]+)(\d*)\[([\d,]*)\]", shape):
        count = 1
        for side in filter(None, sides.split(",")):
            count *= int(side)
        total += count * (1 if dtype == "pred" else int(bits) // 8)
    return total


def measure(name: str, mode: str, whose: str, blocks: int | None = None) -> Reading:
    """Compiles a network and reads it."""
    side, batch = NETWORKS[name]
    sizes = sizes_of(name)
    feature_map = batch * (side // sizes.patch_size) ** 2 * sizes.dim * 2
    keras.utils.clear_session(free_memory=True)
    return read(compile_network(make_network(name, whose, blocks), batch, mode), feature_map)


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
    parser.add_argument("--csv", type=Path, default=CSV)
    options = parser.parse_args()
    if backends.NAME != "jax" or importlib.util.find_spec(PLUGIN) is None:
        version = f"{PLUGIN.replace('_', '-')}=={jax.__version__} jax-cuda12-pjrt=={jax.__version__}"
        parser.error(f"this needs KERAS_BACKEND=jax, and JAX's plugin for CUDA: pip install --no-deps {version}")
    rows = []
    for name in options.networks:
        for mode in MODES:
            for whose in (PLAIN, OURS):
                reading = measure(name, mode, whose, options.blocks)
                rows.append({"network": name, "mode": mode, "whose": whose, **asdict(reading)})
                print(*rows[-1].values(), f"{reading.at_least_ms:.2f} ms", file=sys.stderr, flush=True)
    with options.csv.open("w", newline="") as file:
        columns = ["network", "mode", "whose", *(field.name for field in fields(Reading))]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))


if __name__ == "__main__":
    main()

"""PyTorch shares a run between processes, each with one device: those that `torchrun` starts, or any others.

Keras averages gradients and metrics itself from 3.16 on; before, this does.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import keras
import torch
import torch.distributed as dist

from keras_mixers.backends.torch import sharing_batches
from keras_mixers.data import DataShard
from keras_mixers.training.devices import Devices, await_coordinator, check_processes

HEARTBEAT_SECONDS, JOINING_SECONDS = 30, 120
# How long one process waits for another that lives: it may be fetching a data set.
WAITING = timedelta(hours=12)
ENDED = "ended"


@dataclass(frozen=True)
class TorchDevices(Devices):
    """The devices of several processes, one each."""

    def prepare(self, model: keras.Model) -> None:
        """Gives all processes the first one's values, and makes them share gradients, skipped steps and metrics."""
        optimizer = model.optimizer
        _assign(lambda flat: dist.broadcast(flat, 0), [*model.variables, *optimizer.variables])
        for layer in model._flatten_layers():
            if isinstance(getattr(layer, "seed_generator", None), keras.random.SeedGenerator):
                _draw_apart(layer.seed_generator, self.share.process)
        if hasattr(optimizer, "check_finite"):  # float16: a step is skipped by all or by none
            check_finite = optimizer.check_finite

            def all_finite(gradients: Sequence[Any]) -> torch.Tensor:
                finite = check_finite(gradients).to(torch.int32)
                dist.all_reduce(finite, dist.ReduceOp.MIN)
                return finite.bool()

            optimizer.check_finite = all_finite
        if hasattr(model, "ddp_model"):  # Keras 3.16 and newer
            return

        inner = getattr(optimizer, "inner_optimizer", optimizer)
        scale_loss, clip = optimizer.scale_loss, inner._clip_gradients
        # Each process has the mean of its part of the batch, and the parts are equal. What is summed are gradients as
        # those of one process in size, in float16 too. Keras clips what it is about to apply, accumulated and unscaled.
        optimizer.scale_loss = lambda loss: scale_loss(loss) / self.share.processes
        inner._clip_gradients = lambda gradients: clip(_exchanged(dist.all_reduce, gradients))
        result = model._get_metrics_result_or_logs

        def result_of_all(logs: dict[str, Any]) -> dict[str, Any]:  # at the end of an epoch or an evaluation
            self.merge_metrics(model)
            return result(logs)

        model._get_metrics_result_or_logs = result_of_all

    def gather(self, numbers: tuple[int, ...]) -> Any:
        own = torch.tensor(numbers, device="cpu")
        of_all = [torch.empty_like(own) for _ in range(self.share.processes)]
        dist.all_gather(of_all, own)
        return [each.tolist() for each in of_all]

    def agreed(self, *numbers: int) -> tuple[int, ...]:
        largest = torch.tensor([int(number) for number in numbers], device="cpu")
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return tuple(largest.tolist())

    def merge_metrics(self, model: keras.Model) -> None:
        _assign(dist.all_reduce, model.metrics_variables)

    def split_metrics(self, model: keras.Model) -> None:
        if not self.writes:
            model.reset_metrics()

    @contextlib.contextmanager
    def naming_lost_processes(self) -> Iterator[None]:
        """Also ends this process if another one has shown no sign of life, and keeps all until the first has written.

        `torchrun` ends all processes as soon as one of them ends with an error.
        """
        with super().naming_lost_processes(), _beating():
            try:
                yield
            except SystemExit:  # all of them were asked to stop
                dist.barrier()
                raise
            dist.barrier()

    def is_of_engine(self, error: Exception) -> bool:
        """Gloo's errors are RuntimeErrors that name its files, NCCL's have a class."""
        return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error))


def find_devices(count: int | None) -> Devices:
    """Returns the one device of this process, as `devices.find_devices` explains."""
    join_processes()
    if count not in (None, 1):
        raise ValueError(
            f"devices must be 1 on PyTorch, got devices={count!r}: each process has one; start one for each device, "
            f"such as with torchrun --nproc-per-node {count} -m keras_mixers train."
        )
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return Devices()
    process, processes = dist.get_rank(), dist.get_world_size()
    return TorchDevices(DataShard(process, processes, processes), scope=sharing_batches, reads_alone=False)


def join_processes(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> int:
    """Joins the other processes, as `devices.join_processes` explains."""
    if dist.is_initialized():
        return dist.get_rank()
    described = check_processes(*_of_environment(coordinator, processes, process))
    if described is None or described[1] == 1:
        return 0
    coordinator, processes, process = described
    host, _, port = coordinator.rpartition(":")
    host, timeout = host.strip("[]"), timedelta(seconds=JOINING_SECONDS)
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun, at the address that it gives
    if process or served:
        await_coordinator(coordinator, f"Process {process} of {processes}", JOINING_SECONDS)
    else:
        print(f"Process 0 of {processes} waits for the others for {JOINING_SECONDS} s at most.", file=sys.stderr)
    device = _use_own_device(process)
    if device is None and host in ("localhost", "127.0.0.1"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    try:
        store = dist.TCPStore(host, int(port), processes, is_master=not (process or served), timeout=timeout)
        # The address stays where torchrun starts processes again; their keys must not.
        prefix = f"keras_mixers/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        global _heartbeats
        _heartbeats = Heartbeats(host, int(port), prefix, process, processes)
        backend = f"cpu:gloo,{device.type}:{BACKENDS[device.type]}" if device else "gloo"
        several = {"rank": process, "world_size": processes, "timeout": WAITING, "device_id": device}
        dist.init_process_group(backend, store=dist.PrefixStore(prefix, store), **several)
    except Exception as error:
        raise ConnectionError(f"Process {process} of {processes} could not join at {coordinator!r}: {error}") from error
    return process


def _of_environment(coordinator: str | None, processes: int | None, process: int | None) -> tuple[Any, Any, Any]:
    """Returns what is given, and for the rest what torchrun sets."""
    found = os.environ.get
    if "WORLD_SIZE" not in os.environ:
        return coordinator, processes, process
    if coordinator is None and "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ:
        coordinator = f"{found('MASTER_ADDR')}:{found('MASTER_PORT')}"
    return (
        coordinator,
        found("WORLD_SIZE") if processes is None else processes,
        found("RANK") if process is None else process,
    )


BACKENDS = {"cuda": "nccl", "xpu": "xccl"}  # by which processes exchange what is on the device


def _use_own_device(process: int) -> torch.device | None:
    """Makes this process use one accelerator of its machine, None if it computes on the CPU."""
    kind, _, index = os.environ.get("KERAS_TORCH_DEVICE", "").partition(":")  # which Keras reads
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = kind or (found.type if found else "cpu")
    if kind == "cpu":
        return None
    if kind not in BACKENDS:
        raise ValueError(f"Several processes cannot train on {kind!r} in PyTorch; set KERAS_TORCH_DEVICE=cpu.")
    count = torch.accelerator.device_count()
    local = int(os.environ.get("LOCAL_RANK", process % count))
    if not index and local >= count:
        raise ValueError(
            f"Process {process} is number {local} of its machine, which has {count} accelerators; start as many "
            f"processes there (--nproc-per-node {count})."
        )
    device = torch.device(kind, int(index or local))
    torch.accelerator.set_device_index(device.index)
    return device


def _exchanged(exchange: Callable[[torch.Tensor], Any], tensors: Sequence[Any]) -> list[torch.Tensor]:
    """Returns tensors as `exchange` changes them, in one message for each dtype."""
    tensors, found = [keras.ops.convert_to_tensor(tensor).detach() for tensor in tensors], {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        places = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
        flat = torch.cat([tensors[i].reshape(-1) for i in places])
        exchange(flat)
        for i, part in zip(places, flat.split([tensors[i].numel() for i in places]), strict=True):
            found[i] = part.view_as(tensors[i])
    return [found[i] for i in range(len(tensors))]


def _assign(exchange: Callable[[torch.Tensor], Any], variables: Sequence[keras.Variable]) -> None:
    for variable, value in zip(variables, _exchanged(exchange, variables), strict=True):
        variable.assign(value)


def _draw_apart(generator: keras.random.SeedGenerator, process: int) -> None:
    """Makes a process draw numbers that the others do not; the state, which checkpoints keep, is that of all."""
    following = generator.next
    generator.next = lambda ordered=True: following(ordered).to(torch.int64) + 1_000_003 * process


class Heartbeats:
    """Signs of life: each process gives one every few seconds, and ends itself where another's stay away.

    A process that has ended is known at once on CPUs, where its connections are closed. On GPUs, and where a machine is
    gone, the others would wait within an operation, from which no exception can wake them.
    """

    def __init__(self, host: str, port: int, prefix: str, process: int, processes: int) -> None:
        # A connection of its own: what waits for a key keeps others from using the same one.
        timeout = timedelta(seconds=HEARTBEAT_SECONDS)
        store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
        self.store = dist.PrefixStore(f"{prefix}/heartbeats", store)
        self.process, self.processes, self.beats = process, processes, 0
        self.stopped: threading.Event | None = None
        self.lost = Devices(DataShard(process, processes, processes)).lost
        self._beat()
        self.store.wait([str(i) for i in range(processes)], timedelta(seconds=JOINING_SECONDS))
        self.start()

    def start(self) -> None:
        """Begins, or begins again after a run that has ended."""
        if self.stopped is None:
            self.stopped = threading.Event()
            self._beat()
            self.changed = {str(i): time.monotonic() for i in range(self.processes) if i != self.process}
            for target in (self._exchange, self._watch):  # what waits for process 0 may wait for ever
                threading.Thread(target=target, args=(self.stopped,), daemon=True).start()

    def stop(self, ended: bool) -> None:
        """Ends; the others only miss this process if its run has not."""
        if self.stopped is not None:
            self.stopped.set()
            self.stopped = None
            if ended:
                with contextlib.suppress(RuntimeError):  # process 0 may be gone, rightly
                    self.store.set(str(self.process), ENDED)

    def _beat(self) -> None:
        self.beats += 1
        self.store.set(str(self.process), str(self.beats))

    def _exchange(self, stopped: threading.Event) -> None:
        seen = {}
        with contextlib.suppress(RuntimeError):  # process 0, or torchrun, is gone
            while not stopped.wait(HEARTBEAT_SECONDS / 6):
                self._beat()
                for other in self.changed:
                    value = self.store.get(other)
                    if value == ENDED.encode() or value != seen.get(other):
                        seen[other], self.changed[other] = value, time.monotonic()

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.wait(1):
            if time.monotonic() - min(self.changed.values()) > HEARTBEAT_SECONDS:
                print(self.lost, file=sys.stderr, flush=True)
                os._exit(1)


_heartbeats: Heartbeats | None = None


@contextlib.contextmanager
def _beating() -> Iterator[None]:
    """Gives signs of life and expects them, within a run."""
    if _heartbeats is None:  # the processes were joined by others
        yield
        return
    _heartbeats.start()
    ended = False
    try:
        yield
        ended = True
    except SystemExit:
        ended = True
        raise
    finally:
        _heartbeats.stop(ended)

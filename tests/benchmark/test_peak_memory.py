"""Peak memory is measured in a process of its own."""

import numpy as np
import pytest

from keras_mixers.benchmark.peak_memory import measure_peak_memory, peak_memory_of_this_process
from keras_mixers.benchmark.subjects import Task

pytestmark = [pytest.mark.usefixtures("tiny_models"), pytest.mark.backend_independent]
TASK = Task("tiny_convmixer", "inference", 4, 8, "float32")


def test_memory_is_that_of_a_process_alone():
    task = Task("convmixer_128_4_p1_k8", "inference", 2, 8, "float32")
    ballast = np.ones(10**8)  # 800 MB that a child's ru_maxrss would begin with
    assert 100 < measure_peak_memory("ours", task) < ballast.nbytes / 1e6 + 100
    assert peak_memory_of_this_process("ours", TASK) > ballast.nbytes / 1e6


def test_says_which_subject_failed():
    with pytest.raises(RuntimeError, match="measures the memory of 'ours' at Task"):
        measure_peak_memory("ours", TASK)  # the child has no such model in its table

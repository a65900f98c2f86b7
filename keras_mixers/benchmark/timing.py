"""How long subjects take: warm, and one after the other in each of several rounds."""

import time
from collections.abc import Callable, Sequence

from keras_mixers.benchmark.subjects import Subject

# A subject is warm when its last two batches took as long but for this part, after some batches and before many.
WARM, WARM_UP_BATCHES, MOST_WARM_UP_BATCHES = 0.2, 3, 10


def warm_up(subject: Subject, clock: Callable[[], float] = time.perf_counter) -> None:
    """Lets a subject compute batches until they take no less time than before, or there are enough of them."""
    times = []
    while len(times) < MOST_WARM_UP_BATCHES:
        times.append(_seconds(subject, 1, clock))
        if len(times) >= WARM_UP_BATCHES and abs(times[-1] - times[-2]) < WARM * max(times[-2:]):
            return


def time_in_rounds(
    subjects: Sequence[Subject], repetitions: int, batches: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Returns the seconds that each subject took for its batches, round by round; all are timed once a round."""
    times = {subject.name: [] for subject in subjects}
    for _ in range(repetitions):
        for subject in subjects:
            times[subject.name].append(_seconds(subject, batches, clock))
    return times


def _seconds(subject: Subject, batches: int, clock: Callable[[], float]) -> float:
    subject.wait()
    start = clock()
    for _ in range(batches):
        subject.step()
    subject.wait()
    return clock() - start

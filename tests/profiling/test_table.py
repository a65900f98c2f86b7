"""Text to the left, numbers to the right."""

from keras_mixers.profiling.table import aligned


def test_aligns_columns_by_what_they_hold():
    assert aligned([("name", "size", "shape"), ("a", 1_234_567, (2, 3)), ("longer", 8, (4,))]) == (
        "name         size  shape\n"
        "a       1,234,567  (2, 3)\n"
        "longer          8  (4,)"
    )  # fmt: skip


def test_a_column_with_a_gap_is_text():
    assert aligned([("n", "m"), (1, 10), ("", 2)]) == "n   m\n1  10\n    2"

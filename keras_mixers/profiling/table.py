"""Rows become text in columns."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[object]]) -> str:
    """Returns `rows`, headings first, as lines of columns: text to the left, columns of whole numbers to the right.

    Example:
        >>> print(aligned([("layer", "MACs"), ("patch_embed", 786432), ("head", 2560)]))
        layer           MACs
        patch_embed  786,432
        head           2,560
    """
    columns = []
    for heading, *values in zip(*rows, strict=True):
        right = all(isinstance(value, int) for value in values)
        cells = [str(heading), *(f"{value:,}" if right else str(value) for value in values)]
        width = max(map(len, cells))
        columns.append([cell.rjust(width) if right else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))

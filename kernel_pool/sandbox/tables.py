"""Tables in a kernel: an Arrow IPC stream becomes a pandas DataFrame. Both are imported when the first one comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


class Unreadable(Exception):
    """The broker sent what cannot be an answer."""


def frame_of(data: memoryview) -> DataFrame:
    """The table as a DataFrame that can be written to. Texts are pandas' `str`; whole numbers and truth values that
    may be missing stay what they are (`Int64`, `boolean`), where pandas alone would make floats and objects of them.

    Raises:
        Unreadable: it is no whole Arrow stream.
    """
    import pandas
    import pyarrow

    exact = {pyarrow.int64(): pandas.Int64Dtype(), pyarrow.bool_(): pandas.BooleanDtype()}
    try:
        table = pyarrow.ipc.open_stream(data).read_all()
        frame = table.to_pandas(use_threads=False)  # a kernel has a share of a core: threads would wait for one another
    except pyarrow.ArrowException as error:
        raise Unreadable(f"the tool broker sent a table that cannot be read ({error})") from None
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count and column.type in exact:
            frame[name] = column.to_pandas(types_mapper=exact.get)
    return frame

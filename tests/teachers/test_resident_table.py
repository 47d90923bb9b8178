import pytest
import torch

from kdlab.errors import UsageError
from kdlab.teachers import resident_table
from kdlab.teachers.resident_table import ResidentTable, table_at
from kdlab.teachers.row_file import RowFile

CPU = torch.device("cpu")
ROWS, WIDTH = 20, 3


def file_in(folder):
    return RowFile(folder, {"a": "card"}, ROWS, WIDTH, torch.float16)


def values_of(rows):
    return (rows[:, None] + torch.arange(WIDTH)).half()


def resident_in(folder, asked=range(ROWS)):
    return ResidentTable(file_in(folder), CPU, torch.tensor(list(asked)))


def test_what_the_file_has_is_in_memory_and_the_rest_is_missing(tmp_path):
    rows = torch.tensor([3, 4])
    file_in(tmp_path).keep(rows, values_of(rows))
    values, missing = resident_in(tmp_path).recall(torch.tensor([4, 5, 3, 5]))
    assert missing.tolist() == [1, 3]
    assert values[[0, 2]].equal(values_of(torch.tensor([4, 3])))
    assert values[missing].isnan().all()


def test_what_is_kept_is_in_memory_and_in_the_file(tmp_path):
    table, rows = resident_in(tmp_path), torch.tensor([9, 2])
    table.keep(rows, values_of(rows))
    for place in (table, file_in(tmp_path)):
        values, missing = place.recall(rows)
        assert values.equal(values_of(rows))
        assert not len(missing)


def test_rows_that_another_process_wrote_meanwhile_are_found(tmp_path):
    table, rows = resident_in(tmp_path), torch.arange(ROWS)
    file_in(tmp_path).keep(rows, values_of(rows))
    assert table.unknown == ROWS
    values, missing = table.recall(torch.tensor([5, 6, 5]))
    assert values.equal(values_of(torch.tensor([5, 6, 5])))
    assert not len(missing)
    assert table.unknown == ROWS - 2


def test_a_table_is_complete_with_the_rows_that_may_be_asked_for(tmp_path):
    table = resident_in(tmp_path, asked=[1, 2, 7])
    assert table.unknown == 3
    for rows in ([2], [7, 1]):
        assert table.recall(torch.tensor(rows))[1] is not None
        table.keep(torch.tensor(rows), values_of(torch.tensor(rows)))
    assert table.unknown == 0
    values, missing = table.recall(torch.tensor([7, 7, 1]))
    assert missing is None
    assert values.equal(values_of(torch.tensor([7, 7, 1])))
    assert resident_in(tmp_path, asked=[1, 2, 7]).unknown == 0  # of the next run


def test_a_complete_table_looks_up_without_reading_a_value_on_the_host(tmp_path, monkeypatch):
    rows = torch.arange(ROWS)
    file_in(tmp_path).keep(rows, values_of(rows))
    table = resident_in(tmp_path)

    def refuse(*_, **__):
        pytest.fail("the device would be waited for")

    for reading in ("nonzero", "item", "tolist", "__bool__", "__int__", "__float__", "cpu", "numpy", "isnan"):
        monkeypatch.setattr(torch.Tensor, reading, refuse)
    values, missing = table.recall(rows)
    monkeypatch.undo()
    assert missing is None
    assert values.equal(values_of(rows))


@pytest.mark.parametrize(
    ("device", "host", "expected"),
    [(4 * 120, 16 * 120, "cuda"), (4 * 120 - 1, 16 * 120, "cpu"), (4 * 120 - 1, 16 * 120 - 1, None)],
)
def test_auto_takes_the_first_place_that_has_room(tmp_path, monkeypatch, device, host, expected):
    file = file_in(tmp_path)  # 20 rows x 3 numbers x 2 bytes = 120 bytes
    monkeypatch.setattr(resident_table, "_free", lambda where: {"cuda": device, "cpu": host}[where.type])
    monkeypatch.setattr(resident_table, "ResidentTable", lambda file, where, asked: where.type)
    place = table_at("auto", file, torch.device("cuda"), torch.arange(ROWS))
    assert place == (file if expected is None else expected)


def test_the_place_that_is_named_is_taken(tmp_path):
    file, asked = file_in(tmp_path), torch.arange(ROWS)
    assert table_at("disk", file, CPU, asked) is file
    for place in ("device", "host"):
        assert isinstance(table_at(place, file, CPU, asked), ResidentTable)
    assert isinstance(table_at("auto", file, CPU, asked), ResidentTable)  # 120 bytes fit


@pytest.mark.parametrize(("place", "where"), [("device", "cuda"), ("host", "cpu")])
def test_a_place_without_room_is_refused_with_both_sizes(tmp_path, monkeypatch, place, where):
    file = RowFile(tmp_path, {}, 2**20, 4, torch.float16)
    monkeypatch.setattr(resident_table, "_free", lambda device: 2**20 if device.type == where else 2**40)
    message = f"place is {place}, but the teacher's answers take 8.00 MiB and {where} has 1.00 MiB; set place: auto"
    with pytest.raises(UsageError, match=message):
        table_at(place, file, torch.device("cuda"), torch.arange(4))

"""One table of several networks in three forms."""

import csv
import io
import json

from kdlab.profiling.table import table_rows, to_csv, to_json, to_markdown

METRICS = {
    "runs/a": {"profile/macs": 153_339_904, "profile/latency_ms_p50": 9.06123, "profile/energy_mj_per_image": 4.668},
    "runs/b|c": {"profile/macs": 40_818_944, "profile/latency_ms_p50": 0.0123456, "test/accuracy": 0.5},
}


def test_rows_have_all_columns_and_none_where_a_network_has_no_figure():
    assert table_rows(METRICS) == [
        {
            "network": "runs/a",
            "macs": 153_339_904,
            "latency_ms_p50": 9.06123,
            "energy_mj_per_image": 4.668,
            "test/accuracy": None,
        },
        {
            "network": "runs/b|c",
            "macs": 40_818_944,
            "latency_ms_p50": 0.0123456,
            "energy_mj_per_image": None,
            "test/accuracy": 0.5,
        },
    ]


def test_columns_can_be_chosen_and_those_that_nobody_has_are_left_out():
    rows = table_rows(METRICS, columns=["latency_ms_p50", "net_energy_mj_per_image", "macs"])
    assert [list(row) for row in rows] == [["network", "latency_ms_p50", "macs"]] * 2


def test_markdown_has_four_digits_units_in_the_head_and_notes_below():
    rows = table_rows(METRICS, columns=["macs", "latency_ms_p50", "energy_mj_per_image"])
    assert to_markdown(rows, ["energy of runs/b: not measured (no counter)"]) == (
        "| network | macs | latency_ms_p50 | energy_mj_per_image |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| runs/a | 153,339,904 | 9.061 | 4.668 |\n"
        "| runs/b\\|c | 40,818,944 | 0.01235 | n/a |\n"
        "\n"
        "energy of runs/b: not measured (no counter)\n"
    )


def test_whole_numbers_and_large_ones_are_written_out():
    assert "| a | 12,345,679 | 7 |" in to_markdown([{"network": "a", "x": 12_345_678.9, "n": 7}])


def test_csv_keeps_all_digits_and_says_what_was_not_measured():
    read = list(csv.DictReader(io.StringIO(to_csv(table_rows(METRICS)))))
    assert float(read[1]["latency_ms_p50"]) == 0.0123456
    assert read[1]["energy_mj_per_image"] == "n/a"
    assert read[1]["network"] == "runs/b|c"


def test_json_is_the_rows_with_null():
    rows = table_rows(METRICS)
    assert json.loads(to_json(rows)) == rows


def test_a_table_of_nothing_is_a_head():
    assert table_rows({}) == []
    assert to_markdown([]) == "| network |\n| --- |\n"
    assert to_csv([]) == "network\n"
    assert json.loads(to_json([])) == []

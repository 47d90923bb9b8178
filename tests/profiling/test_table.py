"""One table of several networks in three forms, and what is said below it."""

import csv
import io

from kdlab.profiling.table import notes_on, shown_rows, table_rows, to_csv, to_markdown

METRICS = {
    "runs/a": {"profile/macs": 153_339_904, "profile/latency_ms_p50": 9.06123, "profile/energy_mj_per_image": 4.668},
    "runs/b|c": {"profile/macs": 40_818_944, "profile/latency_ms_p50": 0.0123456},
}


def run(variant, batch_size, p50, **more):
    figures = {f"latency_ms_{name}": p50 for name in ("p50", "p90", "p99")} | {"latency_ms_spread": p50 / 10}
    return {"variant": variant, "batch_size": batch_size, **figures, "throughput_images_per_s": 1e3 / p50,
            "warmup_stable": True, **more}  # fmt: skip


def profile(**sections):
    macs = {"macs": 153_339_904, "macs_agree": True, "uncounted_ops": {}, "uncounted_parameters": [], "macs_doubts": [],
            "macs_thop_style": None, "image_shape": [3, 32, 32]}  # fmt: skip
    return {
        "macs": macs,
        "size": {"parameters": 9_802_596, "size_bytes": 3 * 2**19},
        "latency": {"runs": [run("eager", 1, 9.06123), run("eager", 128, 1234.5)], "not_measured": {}},
        "energy": {"energy_mj_per_image": 4.6684, "notes": [], "net_reason": None},
        **sections,
    }


def test_cells_have_three_digits_and_whole_numbers_in_full():
    (row,) = shown_rows({"a": profile()})
    assert row == {
        "network": "a", "image": "3x32x32", "parameters": "9,802,596", "size MiB": "1.500", "MACs M": "153.340",
        "MACs counters": "agree", "ms p50 at 1": "9.06", "ms p90 at 1": "9.06", "ms p99 at 1": "9.06",
        "ms spread at 1": "0.906", "ms p50 at 128": "1,234", "ms p90 at 128": "1,234", "ms p99 at 128": "1,234",
        "ms spread at 128": "123", "images/s at 128": "0.81", "mJ/image": "4.67",
    }  # fmt: skip
    assert notes_on(profile()) == []


def test_each_variant_has_a_row_and_what_it_does_not_change_stands_in_the_first():
    runs = [run("eager", 1, 2.0), run("bf16", 1, 1.0, latency_ms_p99=None)]
    first, second = shown_rows({"a": profile(latency={"runs": runs})})
    assert (first["network"], first["parameters"], first["mJ/image"]) == ("a", "9,802,596", "4.67")
    assert (second["network"], second["parameters"], second["mJ/image"]) == ("a (bf16)", "", "")
    assert (second["ms p50 at 1"], second["ms p99 at 1"]) == ("1", "n/a")


def test_what_was_not_measured_is_na_in_every_column_of_the_others_with_its_reason_below():
    nothing = {name: {"reason": f"no {name}"} for name in ("macs", "size", "latency", "energy")}
    whole = profile()
    whole["macs"] |= {"macs_thop_style": 153_946_112}
    rows = shown_rows({"nothing": nothing, "whole": whole})
    assert list(rows[0]) == list(rows[1])
    assert rows[1]["MACs M thop style"] == "153.946"
    assert set(rows[0].values()) == {"nothing", "n/a"}
    assert notes_on(nothing) == [f"{name}: not measured (no {name})" for name in nothing]


def test_what_is_not_to_be_trusted_is_said_below():
    runs = [run("eager", 4, 1.0, warmup_stable=False), run("eager", 8, 1.0, latency_ms_spread=0.5),
            run("bf16", 8, 1.0, latency_ms_spread=0.51), run("bf16", 128, 9.0, latency_ms_p99=None)]  # fmt: skip
    doubtful = profile(
        latency={"runs": runs, "not_measured": {"compiled": "no compiler"}},
        energy={"energy_mj_per_image": 4.7, "notes": ["2 other process(es)"], "net_reason": "stood still"},
    )
    doubtful["macs"] |= {"uncounted_parameters": ["w"], "macs_doubts": ["nobody counts the products with w"]}
    assert shown_rows({"a": doubtful})[0]["MACs counters"] == "too low"
    assert notes_on(doubtful) == [
        "nobody counts the products with w.",
        "compiled: not measured (no compiler)",
        "the warm-up had not settled (eager batch 4); give it more seconds.",
        "the machine was busy: the spread is more than half of the median (bf16 batch 8); measure again.",
        "too few calls for p99, which needs 100 (bf16 batch 128); give it more seconds.",
        "energy: 2 other process(es).",
        "net energy: not measured (stood still)",
    ]


def test_counters_that_differ_say_by_how_much():
    differing = profile()
    differing["macs"] |= {"macs_agree": False, "macs_difference": 0.143}
    assert shown_rows({"a": differing})[0]["MACs counters"] == "differ 14%"


def test_a_profile_without_some_of_the_profilers_has_their_cells_empty_of_figures():
    (row,) = shown_rows({"a": {"size": {"parameters": 5, "size_bytes": 20}}})
    assert (row["parameters"], row["MACs M"], row["ms p50 at 1"], row["mJ/image"]) == ("5", "n/a", "n/a", "n/a")


def test_rows_of_all_figures_have_all_columns_and_none_where_a_network_has_no_figure():
    assert table_rows(METRICS, {"runs/a": {"threads": 1}, "runs/b|c": {"threads": 2}}) == [
        {"network": "runs/a", "macs": 153_339_904, "latency_ms_p50": 9.06123, "energy_mj_per_image": 4.668, "threads": 1},
        {"network": "runs/b|c", "macs": 40_818_944, "latency_ms_p50": 0.0123456, "energy_mj_per_image": None, "threads": 2},
    ]  # fmt: skip


def test_markdown_escapes_bars_and_has_notes_below():
    rows = [{"network": "runs/b|c", "macs": "40,818,944"}]
    assert to_markdown(rows, ["energy: not measured (no counter)"]) == (
        "| network | macs |\n| --- | ---: |\n| runs/b\\|c | 40,818,944 |\n\nenergy: not measured (no counter)\n"
    )


def test_csv_keeps_all_digits_and_says_what_was_not_measured():
    read = list(csv.DictReader(io.StringIO(to_csv(table_rows(METRICS)))))
    assert float(read[1]["latency_ms_p50"]) == 0.0123456
    assert read[1]["energy_mj_per_image"] == "n/a"
    assert read[1]["network"] == "runs/b|c"

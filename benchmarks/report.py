"""The records of a run as tables, with ratios to the baseline."""

from __future__ import annotations

BUSY = 0.25  # load average a core from which on times are not to be trusted
RATIOS = {
    "ratio_min": "min_ms",
    "ratio_median": "median_ms",
    "ratio_memory": "peak_mib",
}
COLUMNS = {  # field of a record: heading, format
    "min_ms": ("min ms", "{:,.2f}"),
    "median_ms": ("median ms", "{:,.2f}"),
    "repetitions": ("calls", "{}"),
    "ratio_min": ("x min", "{:,.2f}"),
    "ratio_median": ("x median", "{:,.2f}"),
    "max_error": ("error", "{:.0e}"),
    "microseconds_per_token": ("us/token", "{:.2f}"),
    "ms_per_token": ("ms/token", "{:.2f}"),
    "first_call_peak_mib": ("with compiling", "{:,.0f}"),
    "peak_mib": ("peak MiB", "{:,.0f}"),
    "ratio_memory": ("x memory", "{:,.2f}"),
    "resident_start_mib": ("MiB at start", "{:,.0f}"),
    "resident_end_mib": ("MiB at end", "{:,.0f}"),
    "other_length_first_call_ms": ("another L, ms", "{:,.0f}"),
}


def group_of(record: dict) -> tuple:
    """Records of one group are compared with each other."""
    return record["measurement"], tuple(record["shape"])


def with_ratios(records: list[dict]) -> list[dict]:
    """Records with ratio_min, ratio_median and ratio_memory, where their group has a baseline."""
    baselines = {group_of(r): r for r in records if r["baseline"] and "error" not in r}
    found = []
    for record in records:
        record = {name: value for name, value in record.items() if name not in RATIOS}
        baseline = baselines.get(group_of(record), {})
        for ratio, field in RATIOS.items():
            if baseline.get(field) and field in record:
                record[ratio] = round(record[field] / baseline[field], 3)
        found.append(record)
    return found


def in_short(record: dict) -> str:
    """One record in one line, after the name of its case."""
    if "error" in record:
        return f"FAILED: {record['error']} ({record['seconds_in_all']:.0f} s)"
    fields = [f for f in COLUMNS if f in record and f not in RATIOS]
    shown = [f"{COLUMNS[f][0]} {COLUMNS[f][1].format(record[f])}" for f in fields]
    return f"{', '.join(shown)} ({record['seconds_in_all']:.0f} s)"


def table(records: list[dict]) -> str:
    """The records of one group, a line each, in the columns that any of them fills."""
    fields = [f for f in COLUMNS if any(f in r for r in records)]
    rows = [["", *(COLUMNS[f][0] for f in fields)]]
    for record in records:
        cells = [COLUMNS[f][1].format(record[f]) if f in record else "" for f in fields]
        rows.append([record["peer"] + (" *" if record["baseline"] else ""), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    for line, record in enumerate(records, 1):
        lines[line] += f"  {record['error']}" if "error" in record else ""
    return "\n".join(lines)


def print_tables(records: list[dict]) -> None:
    """Prints a table for each measurement and shape; one for all shapes that have one peer."""
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        groups.setdefault(group_of(record), []).append(record)
    for (measurement, shape), members in groups.items():
        sizes = ", ".join(
            f"{axis} {size:,}" for axis, size in zip(members[0]["axes"].split(), shape, strict=True)
        )
        print(f"\n{measurement} ({sizes})\n{table(members)}")
    if any(r["baseline"] for r in records):
        print("\n* what the ratios (x) divide by: 3 means three times as long, or as much")


def print_about(about: dict) -> None:
    """Prints machine, versions and settings."""
    machine = about["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB")
    print(f"{machine['system']}, Python {about['python']}")
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    print(
        f"{about['date']}, load average {about['load_average']}, oneDNN "
        f"{'on' if about['onednn'] else 'off'}, PyTorch on {about['torch_threads']} threads"
    )
    if about["load_average"] > BUSY * machine["cores"]:
        print("Something else is running: these times mean little, least of all PyTorch's.")

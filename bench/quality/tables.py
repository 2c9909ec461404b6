"""The figures as text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.quality.rates import FALSE_RATES, Estimate, Share

OURS = ("cosine", "guards", "verifier", "semcached")


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def shown(one: Share | Estimate | None) -> str:
    """A rate in percent with its interval."""
    if one is None:
        return "-"
    rate = one.share if isinstance(one, Share) else one.rate
    return f"{percent(rate)} ({percent(one.low)}-{percent(one.high)})"


def laid_out(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first to the left."""
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    padded = [[cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *cells[1:]]) for line, cells in zip(lines, padded, strict=True)
    )


def swept(results: Sequence[Mapping[str, Any]]) -> str:
    """Label 1 served at fixed false-hit rates, by set and decider."""
    lines = [["set", "decider", *(f"at {percent(rate)} % false" for rate in FALSE_RATES)]]
    for result in results:
        for name, found in result["deciders"].items():
            if "curve" in found:
                lines.append([marked(result), name, *(shown(found["at"][str(rate)]) for rate in FALSE_RATES)])
    return laid_out(lines)


def defaults(results: Sequence[Mapping[str, Any]]) -> str:
    """Served of label 1 and of label 0 by each decider's default; peers that decide alike share a column."""
    columns: dict[tuple[str, ...], list[str]] = {}
    for name in dict.fromkeys(name for result in results for name in result["deciders"]):
        cells = tuple(ones_and_zeros(result["deciders"][name]["default"], name) for result in results)
        columns.setdefault((*cells, name) if name in OURS else cells, []).append(name)
    lines = [["set", "pairs 1/0", "half read", *(" = ".join(names) for names in columns.values())]]
    for at, result in enumerate(results):
        counts = f"{result['label_1']}/{result['label_0']}"
        read = str(result["texts_trained"])
        lines.append([marked(result), counts, read, *(cells[at] for cells in columns)])
    return laid_out(lines)


def ones_and_zeros(found: Mapping[str, Share], name: str) -> str:
    """Label 1 / label 0, with intervals for our own."""
    return " / ".join(
        "-" if (one := found.get(label)) is None else shown(one) if name in OURS else percent(one.share)
        for label in ("label_1", "label_0")
    )


def meant(means: Mapping[str, Mapping[str, Estimate]]) -> str:
    """The means over the sets."""
    parts = list(next(iter(means.values()), {}))
    return laid_out(
        [["decider", *parts], *([name, *map(shown, found.values())] for name, found in means.items())]
    )


def by_kind(results: Sequence[Mapping[str, Any]]) -> str:
    """What the shipped decision serves of each kind."""
    lines = [["set, kind/label", "pairs", "semcached", "cosine"]]
    for result in results:
        cosine = result["deciders"]["cosine"]["kinds"]
        for kind, one in result["deciders"]["semcached"]["kinds"].items():
            lines.append(
                [f"{marked(result)}, {kind}", str(one.total), shown(one), percent(cosine[kind].share)]
            )
    return laid_out(lines)


def guarded(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What each guard alone rejects: its gain in traps, its price in rewordings."""
    names = list(dict.fromkeys(name for result in results for name in result["guards"]))
    if names:
        lines = [["set, rejected of label 1/0", *names]]
        for result in results:
            cells = [
                "/".join(
                    percent(found[label].share) if label in found else "-" for label in ("label_1", "label_0")
                )
                for found in (result["guards"][name] for name in names)
            ]
            lines.append([marked(result), *cells])
        yield laid_out(lines)


def marked(result: Mapping[str, Any], part: str = "all") -> str:
    """A star where the verifier may have learned from these rows."""
    return f"{result['set']}*" if result["trained"] and part == "all" else f"{result['set']}"


def populated(results: Sequence[Mapping[str, Any]]) -> str:
    """What filled caches serve: by default, and by the similarity alone at some thresholds."""
    head = ["set, queries", "entries", "asked", "right/answerable", "hits/all", "wrong/all", "wrong/hits"]
    lines = [head]
    for result in results:
        for part, found in result["asked"].items():
            name, counts = f"{marked(result, part)}, {part}", [str(result["entries"]), str(found["asked"])]
            lines.append([name, *counts, *map(shown, found["default"].values())])
            for threshold, one in found["thresholds"].items():
                lines.append([f"  cosine {threshold}", "", "", *map(shown, one.values())])
    return laid_out(lines)


def populated_swept(results: Sequence[Mapping[str, Any]]) -> str:
    """Right answers of those there, while the wrong ones are at most a share of all queries."""
    lines = [["set, queries", "decider", *(f"at {percent(rate)} % wrong" for rate in FALSE_RATES)]]
    for result in results:
        for part, found in result["asked"].items():
            for name, rates in found["swept"].items():
                cells = [f"{shown(at['right'])} from {at['cut']:.3f}" for at in rates.values()]
                lines.append([f"{marked(result, part)}, {part}", name, *cells])
    return laid_out(lines)


def streamed(results: Sequence[Mapping[str, Any]]) -> str:
    """Rates along each stream."""
    lines = [["stream", "queries", "hit", "exact hit", "right answer there", "wrong/all", "wrong/hits"]]
    for result in results:
        for part, found in [*result["windows"].items(), ("all", result["all"])]:
            lines.append(
                [
                    f"{result['set']}, {part}",
                    str(found["queries"]),
                    shown(found["hit"]),
                    percent(found["exact"].share),
                    percent(found["answerable"].share),
                    shown(found["wrong_of_all"]),
                    shown(found["wrong_of_hits"]),
                ]
            )
    return laid_out(lines)

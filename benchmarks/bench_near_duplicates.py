"""Near-duplicates among a million texts grown from templates, a tenth of them planted.

Recall is the share of planted texts that are removed, of those whose original is kept. A removal is
false if no earlier kept text of the bucket has an exact Jaccard similarity of at least 0.8; the
share is of the texts removed. Where a method blames a text that is not that similar, all others of
the bucket are compared, for a sample. A bucket is everything ("whole"), or the texts of one request
in one wrapper family, as a build compares them ("within").
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measure import ROOT, call, publish
from workbench.data.dedupe import THRESHOLD, near_duplicates, normalize
from workbench.data.requests import load_benign, load_requests
from workbench.data.wrappers import load_wrappers, put_on

PINS = {"rensa": "0.5.0", "datasketch": "2.0.0"}
KINDS = ("word swap", "typos", "insertion", "punctuation", "phrase")
PHRASES = (
    "please answer in full", "this is for a friend", "as we said before", "i ask once more",
    "be quick about it", "you know what i mean", "by the way", "nothing else matters today",
)  # fmt: skip
LIMITS = {"cpu_s_per_million": 25.0, "extra_rss_mb": 600.0, "false_percent": 0.05}
LEAST_RECALL = 0.99
SAMPLE = 300
NONE = -1
Repeats = NDArray[np.int64]


def main() -> None:
    """Measure and publish, or do the one step that the command names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--peer-rows", type=int, default=100_000, help="fewer: they take minutes; 0: none"
    )
    parser.add_argument("--step", help="grow, or method:bucket; what the benchmark calls itself by")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    if chosen.step == "grow":
        grow(chosen.rows, folder=chosen.folder)
    elif chosen.step:
        method, bucket = chosen.step.split(":")
        print(json.dumps(measure(method, bucket, rows=chosen.rows, folder=chosen.folder)))
    else:
        compare(rows=chosen.rows, peer_rows=min(chosen.rows, chosen.peer_rows))


def compare(*, rows: int, peer_rows: int) -> None:
    """Run each method in a process of its own, so that each peak of memory is its own."""
    steps = [("workbench", rows)]
    steps += [("workbench", peer_rows)] if 0 < peer_rows < rows else []
    for package, pin in PINS.items() if peer_rows else ():
        if importlib.util.find_spec(package):
            steps += [(package, peer_rows), (f"{package} + verify", peer_rows)]
        else:
            print(f"{package}: not installed; to compare, pip install {package}=={pin}")
    with tempfile.TemporaryDirectory() as folder:

        def run(step: str, count: int) -> str:
            command = [sys.executable, __file__, "--step", step, "--rows", str(count)]
            return call([*command, "--folder", folder], cwd=ROOT).output.splitlines()[-1]

        print(run("grow", rows))
        table = [
            json.loads(run(f"{method}:{bucket}", count))
            for method, count in steps
            for bucket in ("whole", "within")
        ]
    publish("near_duplicates", table)


def grow(rows: int, *, folder: Path) -> None:
    """Write texts and planted near-duplicates of them, each at a random place after its original.

    Each planted text is checked here, by sets of strings: what it takes to find it is known.
    """
    draw = random.Random(0)  # noqa: S311
    requests = [*load_requests(), *load_benign()]
    wrappers = load_wrappers()
    count = rows - rows // 10
    # (place, text as written, bucket, number of the original, kind, similarity)
    grown: list[tuple[float, str, str, int, int]] = []
    for _ in range(count):
        request, wrapper = draw.choice(requests), draw.choice(wrappers)
        text = put_on(request.request, wrapper, number=draw.randrange(1 << 20), draw=draw)
        grown.append((draw.random(), text, f"{request.id} {wrapper.family}", NONE, NONE))
    vocabulary = sorted({word for _, text, *_ in grown[:2000] for word in text.split()})
    similarities = []
    while len(grown) < rows:
        original, kind = draw.randrange(count), len(grown) % len(KINDS)
        place, text, bucket, *_ = grown[original]
        edited, similarity = plant(text, KINDS[kind], vocabulary=vocabulary, draw=draw)
        if edited:
            grown.append((draw.uniform(place, 1), edited, bucket, original, kind))
            similarities.append(similarity)
    order = sorted(range(rows), key=lambda number: grown[number][0])
    position = {number: at for at, number in enumerate(order)} | {NONE: NONE}
    keys = [normalize(grown[number][1]) for number in order]
    buckets = [grown[number][2] for number in order]
    for name, lines in (("keys", keys), ("buckets", buckets)):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    np.save(folder / "originals.npy", [position[grown[number][3]] for number in order])
    np.save(folder / "kinds.npy", [grown[number][4] for number in order])
    lengths = np.fromiter(map(len, keys), dtype=np.int64)
    shares = np.quantile(similarities, (0, 0.1, 0.5, 0.9)).round(3).tolist()
    print(
        f"{rows} texts of {len(requests)} requests in {len(wrappers)} families, mean length"
        f" {lengths.mean():.0f}, median {np.median(lengths):.0f};"
        f" planted: Jaccard min, 10 %, 50 %, 90 % {shares}"
    )


def plant(
    text: str, kind: str, *, vocabulary: Sequence[str], draw: random.Random
) -> tuple[str, float]:
    """Return a text edited until it is just similar enough, and how similar; empty if it is not."""
    times = draw.randint(1, max(1, len(text) // 80))
    key = normalize(text)
    while times:
        words = text.split(" ")
        for _ in range(1 if kind == "phrase" else times):
            edit(words, kind, vocabulary=vocabulary, draw=draw)
        edited = " ".join(words)
        similarity = exact(key, normalize(edited))
        if THRESHOLD <= similarity < 1:
            return edited, similarity
        times //= 2
    return "", 0.0


def edit(words: list[str], kind: str, *, vocabulary: Sequence[str], draw: random.Random) -> None:
    """Change one thing about a text."""
    at = draw.randrange(len(words))
    word = words[at]
    if kind == "word swap":
        words[at] = draw.choice(vocabulary)
    elif kind == "insertion":
        words.insert(at, draw.choice(vocabulary))
    elif kind == "phrase":
        words.insert(draw.choice((0, len(words))), draw.choice(PHRASES))
    elif kind == "punctuation":
        bare = word.strip(".,!?;:\"'")
        words[at] = draw.choice((bare.upper(), bare.title(), bare)) + draw.choice(
            (",", "!", "...", ";")
        )
    else:
        letter = draw.randrange(max(1, len(word)))
        pair = word[letter : letter + 2]
        typo = draw.choice((pair[::-1], pair[:1] * 2 + pair[1:], pair[1:]))
        words[at] = word[:letter] + typo + word[letter + 2 :]


def grams(key: str) -> set[str]:
    """Return the character 5-grams."""
    return {key[at : at + 5] for at in range(max(1, len(key) - 4))}


def exact(left: str, right: str) -> float:
    """Return the Jaccard similarity without any of the code that is measured."""
    a, b = grams(left), grams(right)
    return len(a & b) / len(a | b)


def measure(method: str, bucket: str, *, rows: int, folder: Path) -> dict[str, Any]:
    """Return one line of the table."""
    keys = read(folder / "keys", rows=rows)
    within = read(folder / "buckets", rows=rows) if bucket == "within" else None
    find = METHODS[method]
    gc.collect()
    before_mb = peak_mb(reset=True)
    started = time.process_time()
    repeats = find(keys, within)
    cpu_s = time.process_time() - started
    extra_rss_mb = peak_mb() - before_mb
    found: dict[str, Any] = {
        "method": method,
        "bucket": bucket,
        "rows": rows,
        "cpu_s": cpu_s,
        "rows_per_cpu_s": round(rows / cpu_s),
        "cpu_s_per_million": cpu_s / rows * 1e6,
        "extra_rss_mb": extra_rss_mb,
        "removed": int((repeats >= 0).sum()),
        **recalls(repeats, folder=folder),
        "false_percent": false_percent(repeats, keys, within),
    }
    worst = min(found[kind] for kind in KINDS)
    is_met = worst >= LEAST_RECALL and all(found[name] <= most for name, most in LIMITS.items())
    return found | {"meets the limits": "yes" if is_met else "no"}


def read(path: Path, *, rows: int) -> list[str]:
    """Return the first lines; nothing more is read, which would leave memory to use again."""
    with path.open(encoding="utf-8", newline="\n") as file:
        return [line[:-1] for line in islice(file, rows)]


def recalls(repeats: Repeats, *, folder: Path) -> dict[str, float]:
    """Return kind → share removed of the planted texts whose original is kept."""
    originals = np.load(folder / "originals.npy")[: len(repeats)]
    kinds = np.load(folder / "kinds.npy")[: len(repeats)]
    is_fair = (originals >= 0) & (repeats[originals] < 0)
    return {
        kind: float((repeats[is_fair & (kinds == number)] >= 0).mean())
        for number, kind in enumerate(KINDS)
    }


def false_percent(repeats: Repeats, keys: Sequence[str], within: Sequence[str] | None) -> float:
    """Return the percentage of removals that no earlier kept text of the bucket explains."""
    removed = np.flatnonzero(repeats >= 0)
    doubtful = [
        at
        for at, blamed in zip(removed.tolist(), repeats[removed].tolist(), strict=True)
        if not (
            blamed < at
            and repeats[blamed] < 0
            and (within is None or within[blamed] == within[at])
            and exact(keys[blamed], keys[at]) >= THRESHOLD
        )
    ]
    if not doubtful:
        return 0.0
    sample = random.Random(0).sample(doubtful, min(SAMPLE, len(doubtful)))  # noqa: S311
    false = sum(best_similarity(sample, repeats, keys, within) < THRESHOLD)
    return float(100 * false / len(sample) * len(doubtful) / len(removed))


def best_similarity(
    sample: Sequence[int], repeats: Repeats, keys: Sequence[str], within: Sequence[str] | None
) -> NDArray[np.float64]:
    """Return the largest similarity of each text of a sample with earlier kept ones."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(
        analyzer="char", ngram_range=(5, 5), binary=True, lowercase=False, dtype=np.int32
    )
    table = counter.fit_transform(keys)
    sizes = np.diff(table.indptr)
    kept = np.flatnonzero(repeats < 0)
    shared = (table[kept] @ table[list(sample)].T).tocsc()
    best = np.zeros(len(sample))
    for column, at in enumerate(sample):
        some = slice(shared.indptr[column], shared.indptr[column + 1])
        others, counts = kept[shared.indices[some]], shared.data[some]
        is_fair = np.array(
            [one < at and (within is None or within[one] == within[at]) for one in others.tolist()],
            dtype=np.bool_,
        )
        similar = counts / (sizes[others] + sizes[at] - counts)
        best[column] = similar[is_fair].max(initial=0)
    return best


def ours(keys: Sequence[str], within: Sequence[str] | None) -> Repeats:
    """Return what the product says."""
    return near_duplicates(keys, within=within)


def peer(package: str, *, verify: bool) -> Callable[[Sequence[str], Sequence[str] | None], Repeats]:
    """Return the peer's MinHash LSH as its README uses it: what a query returns is a repetition."""

    def find(keys: Sequence[str], within: Sequence[str] | None) -> Repeats:
        library = importlib.import_module(package)
        sketch, index = (rensa_tools if package == "rensa" else datasketch_tools)(library)
        indexes: dict[str, Any] = defaultdict(index)
        repeats = np.full(len(keys), NONE, dtype=np.int64)
        for at, key in enumerate(keys):
            minhash, known = sketch(key), indexes[within[at] if within else ""]
            for other in known.query(minhash):
                if not verify or exact(keys[other], key) >= THRESHOLD:
                    repeats[at] = other
                    break
            else:
                known.insert(at, minhash)
        return repeats

    return find


def rensa_tools(library: Any) -> tuple[Callable[[str], Any], Callable[[], Any]]:
    """Return how a text is sketched and an index made; 16 bands of 8."""

    def sketch(key: str) -> Any:
        minhash = library.RMinHash(num_perm=128, seed=42)
        minhash.update(list(grams(key)))
        return minhash

    return sketch, lambda: library.RMinHashLSH(threshold=THRESHOLD, num_perm=128, num_bands=16)


def datasketch_tools(library: Any) -> tuple[Callable[[str], Any], Callable[[], Any]]:
    """Return how a text is sketched and an index made; the library chooses the bands."""

    def sketch(key: str) -> Any:
        minhash = library.MinHash(num_perm=128)
        minhash.update_batch([gram.encode("utf-8") for gram in grams(key)])
        return minhash

    first = library.MinHashLSH(threshold=THRESHOLD, num_perm=128)
    # Choosing takes it milliseconds: once for all buckets.
    chosen = (first.b, first.r)
    return sketch, lambda: library.MinHashLSH(num_perm=128, params=chosen)


METHODS = {
    "workbench": ours,
    **{package: peer(package, verify=False) for package in PINS},
    **{f"{package} + verify": peer(package, verify=True) for package in PINS},
}


def peak_mb(*, reset: bool = False) -> float:
    """Return the largest resident size so far, or the present one as the new start; Linux only."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()

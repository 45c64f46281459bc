"""Training a byte-level BPE: merge the most frequent neighbours, again and again (Sennrich et al.
2016). This makes config/toy.bpe anew; as it is here, with

    python -m worlds.extras.teacher --tasks 3000 --out out/episodes.jsonl
    python -m support.tokenizer_train out/episodes.jsonl
"""

import heapq
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import regex

from support import corpus
from support.tokenizer import (
    MARKERS,
    PATTERN,
    TOOLS_BEGIN,
    TOOLS_END,
    TOY_VOCABULARY,
    chat_text,
    toy,
)
from worlds.splits import SYLLABLES

ENTRIES = 1024  # of the toy vocabulary, markers included


def train_bpe(texts: Iterable[str], entries: int, syllables: Iterable[str] = ()) -> list[bytes]:
    """The first `entries` tokens of a byte-level BPE: 256 bytes, then one merge after another
    (Sennrich et al. 2016).

    `syllables` (a consonant and a vowel each) are merged before all others, and none with a single
    mark or space before it. Deterministic: of equally frequent pairs the smaller bytes win. The
    counts of pairs are kept up to date word by word, so that a merge costs only the words it
    changes.
    """
    kept_whole = [syllable.encode() for syllable in syllables]
    words = Counter(word for text in texts for word in regex.findall(PATTERN, text))
    first_cut = re.compile(b"|".join([*kept_whole, b"."]), re.DOTALL)
    pieces = [(first_cut.findall(word.encode()), count) for word, count in sorted(words.items())]
    counts: Counter = Counter()  # pair -> how often it stands in the text
    where = defaultdict(set)  # pair -> words that hold it
    for index, (parts, count) in enumerate(pieces):
        for pair in zip(parts, parts[1:]):
            counts[pair] += count
            where[pair].add(index)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    vocabulary = [bytes([b]) for b in range(256)] + kept_whole
    known = set(vocabulary)
    while len(vocabulary) < entries and queue:
        negative, pair = heapq.heappop(queue)
        if -negative != counts[pair]:  # the count has changed since: ask again later
            if counts[pair] > 0:
                heapq.heappush(queue, (-counts[pair], pair))
            continue
        merged = pair[0] + pair[1]
        if pair[1] in kept_whole and len(pair[0]) == 1 and not pair[0].isalpha():
            continue
        if merged not in known:  # two pairs can spell the same token
            vocabulary.append(merged)
            known.add(merged)
        changed = set()
        for index in where.pop(pair):
            parts, count = pieces[index]
            for old in zip(parts, parts[1:]):
                counts[old] -= count
                changed.add(old)
            position = 0
            while position < len(parts) - 1:
                if (parts[position], parts[position + 1]) == pair:
                    parts[position : position + 2] = [merged]
                position += 1
            for new in zip(parts, parts[1:]):
                counts[new] += count
                where[new].add(index)
                changed.add(new)
        for old in changed:
            if counts[old] > 0:
                heapq.heappush(queue, (-counts[old], old))
    return vocabulary


def main() -> None:
    """Train config/toy.bpe on the standard library and on conversations, if a file of them is given
    (one line of JSON each: messages, tools).

    Conversations are a twentieth of the text and count five times: a call then costs half the
    tokens, and Python hardly more.
    """
    texts = [document.text for document in corpus.documents()]
    lines = Path(sys.argv[1]).read_text().splitlines() if len(sys.argv) > 1 else []
    rows = [json.loads(line) for line in lines]
    conversations = [chat_text(row["messages"], row["tools"], "compact") for row in rows]

    # the markers are tokens already: the merges shall not learn their letters
    markers = [*MARKERS, TOOLS_BEGIN, TOOLS_END]
    between_markers = regex.compile("|".join(map(regex.escape, markers)))
    pieces = (piece for text in texts + conversations * 5 for piece in between_markers.split(text))
    vocabulary = train_bpe(pieces, ENTRIES - len(markers), SYLLABLES)

    aside = TOY_VOCABULARY.with_suffix(".tmp")
    aside.write_text(
        "# The toy vocabulary: one token per line, its rank is its place; "
        "made by support/tokenizer_train.py\n" + "".join(f"{entry!r}\n" for entry in vocabulary)
    )
    aside.replace(TOY_VOCABULARY)
    print(f"{TOY_VOCABULARY}: {len(vocabulary)} tokens and {len(markers)} markers")
    for name, sample in (("Python", texts[:200]), ("conversations", conversations[:200])):
        if sample:
            text = "".join(sample)
            rate = len(text.encode()) / len(toy().encode(text, special=True))
            print(f"{name}: {rate:.2f} bytes per token")


if __name__ == "__main__":
    main()

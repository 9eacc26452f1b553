"""The made test split: stratified, never a class's last image, decided by contents alone."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.data.holdout import choose_test

FILES = st.lists(st.tuples(st.integers(0, 400).map(lambda k: f"{k:032x}"), st.sampled_from("abcde")), max_size=120)


@settings(max_examples=60)
@given(FILES, st.randoms(use_true_random=False))
def test_rules(files, random):
    digests, labels = [d for d, _ in files], [label for _, label in files]
    chosen = choose_test(digests, labels)
    contents, total, taken, largest = defaultdict(set), Counter(labels), Counter(), Counter()
    for (digest, label), is_test in zip(files, chosen, strict=True):
        contents[label, is_test].add(digest)
        taken[label] += is_test
        largest[label] = max(largest[label], files.count((digest, label)))
    for label in total:
        train, test = contents[label, False], contents[label, True]
        assert train  # the last image is for training
        assert not train & test  # doubles stay together
        assert bool(test) == (len(train | test) > 1)
        assert taken[label] <= max(max(1, round(0.2 * total[label])), largest[label])
    shuffled = random.sample(range(len(files)), len(files))
    again = choose_test([digests[k] for k in shuffled], [labels[k] for k in shuffled])
    assert again == [chosen[k] for k in shuffled]


def test_a_fifth_of_each_class():
    labels = ["a"] * 100 + ["b"] * 10 + ["c"] * 2 + ["d"]
    digests = [f"{k:032x}" for k in range(len(labels))]
    chosen = choose_test(digests, labels)
    taken = Counter(label for label, is_test in zip(labels, chosen, strict=True) if is_test)
    assert taken == {"a": 20, "b": 2, "c": 1}


def test_what_is_added_changes_little():
    digests, labels = [f"{k * 7919:032x}" for k in range(500)], ["a"] * 500
    before = choose_test(digests, labels)
    after = choose_test([*digests, *(f"{k:032x}" for k in range(10**6, 10**6 + 20))], [*labels, *["a"] * 20])
    moved = sum(x != y for x, y in zip(before, after, strict=False))
    assert moved <= 20

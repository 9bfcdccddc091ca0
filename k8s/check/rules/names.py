"""Names and labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from k8s.check.bundle import Bundle, where

Found = Iterator[tuple[str, str]]
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
LONGEST = 63
# A Service's name is part of a host name, and these kinds become labels of their pods.
LABELLED = ("Service", "Deployment", "StatefulSet", "Job", "CronJob", "Namespace")


def names_are_dns(bundle: Bundle) -> Found:
    """RFC 1123: lower case, digits, `-`; a label at most 63 long, other names 253."""
    for one in bundle.objects:
        name = str(one["metadata"].get("name", ""))
        parts = [name] if one["kind"] in LABELLED else name.split(".")
        longest = LONGEST if one["kind"] in LABELLED else 253
        if len(name) > longest or not all(LABEL.fullmatch(part) for part in parts):
            yield where(one), f"the name must be a DNS name of at most {longest} characters"


def labels_are_valid(bundle: Bundle) -> Found:
    """Values of labels are short strings."""
    for one in bundle.objects:
        for key, value in one["metadata"].get("labels", {}).items():
            if not isinstance(value, str) or len(value) > LONGEST or not VALUE.fullmatch(value):
                yield where(one), f"label {key}: {value!r} is no string of 63 letters, digits, `-_.`"


def objects_are_unique(bundle: Bundle) -> Found:
    """Two objects of one kind, namespace and name overwrite each other."""
    counted = Counter(
        (one["apiVersion"].partition("/")[0], where(one), one["metadata"].get("namespace"))
        for one in bundle.objects
    )
    yield from ((key[1], "is there more than once") for key, number in counted.items() if number > 1)


RULES = (names_are_dns, labels_are_valid, objects_are_unique)

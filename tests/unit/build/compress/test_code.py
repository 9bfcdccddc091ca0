"""Small functions that a model writes are run with limits, and judged by checks."""

from __future__ import annotations

import pytest

from build.compress.code.problems import Problem, body, problems, solved
from build.compress.code.sandbox import passes

# By hand, in the order of the problems.
SOLUTIONS = {
    "shelf_length": "return sum(widths) + gap * max(0, len(widths) - 1)",
    "is_quiet_hour": "return hour >= 22 or hour <= 6",
    "count_vowels": "return sum(letter in 'aeiou' for letter in text.lower())",
    "largest_even": "return max((n for n in numbers if n % 2 == 0), default=None)",
    "celsius": "return (fahrenheit - 32) * 5 / 9",
    "initials": "return ''.join(word[0].upper() for word in name.split())",
    "reverse_words": "return ' '.join(reversed(sentence.split()))",
    "sum_of_squares": "return sum(i * i for i in range(n + 1))",
    "without_duplicates": "return list(dict.fromkeys(items))",
    "is_leap": "return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)",
    "longest_word": "return max(words, key=len)",
    "clamp": "return max(low, min(value, high))",
    "average": "return sum(numbers) / len(numbers) if numbers else 0",
    "count_words": "words = text.split()\n    return {word: words.count(word) for word in words}",
    "is_sorted": "return all(a <= b for a, b in zip(numbers, numbers[1:]))",
    "digits_sum": "return sum(int(digit) for digit in str(number))",
    "pairs_with_sum": """n, count = numbers, 0
    for j in range(len(n)):
        count += sum(n[i] + n[j] == total for i in range(j))
    return count""",
    "title_case": "return ' '.join(word.capitalize() for word in text.split())",
    "change": """coins = 0
    for coin in (50, 20, 10, 5, 2, 1):
        coins, cents = coins + cents // coin, cents % coin
    return coins""",
    "flatten": "return [element for part in lists for element in part]",
}


def test_there_are_twenty_problems_and_each_can_be_solved() -> None:
    asked = problems()
    assert [problem.name for problem in asked] == list(SOLUTIONS)
    assert len(asked) == 20
    assert solved(asked, [f"    {SOLUTIONS[problem.name]}\n" for problem in asked]) == list(SOLUTIONS)


def test_no_problem_is_solved_by_doing_nothing() -> None:
    asked = problems()
    assert solved(asked, ["    pass\n"] * len(asked)) == []
    assert solved(asked, [""] * len(asked)) == []


def test_what_follows_the_function_is_left_out() -> None:
    answer = "    return 1\n\n    # still in it\n\nprint(undefined)\n"
    assert body(answer) == "    return 1\n\n    # still in it\n"
    problem = Problem("one", 'def one():\n    """Return 1."""\n', ("one() == 1",))
    assert solved([problem], [answer]) == ["one"]


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "x = bytearray(1 << 31)",
        "open('left', 'w').write('x')",
        "open('left', 'ab')",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.fork()",
        "import os; os.remove(__file__)",
        "import sys; print('all hold'); sys.exit(1)",
        "import os; os._exit(0)",
        "this is no program",
    ],
)
def test_a_program_that_misbehaves_does_not_pass(program: str) -> None:
    assert not passes(program, ["True"])
    assert passes("x = 1", ["x == 1"])

"""What compile.py makes of server/kernels and what it says where it cannot; what the engine then loads."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numpy.core import _multiarray_umath as multiarray

from engine.runners.kernels import (
    FOLDER,
    INSTRUCTIONS,
    LEVELS,
    KernelsMissing,
    _fingerprint,
    instructions,
    load_kernels,
    load_library,
)

LIBRARIES = [name for names in LEVELS.values() for name in names]
FLAGS = {
    "-mavx2": "AVX2",
    "-mfma": "FMA",
    "-mf16c": "F16C",
    "-mavx512f": "AVX512F",
    "-mavx512bw": "AVX512BW",
    "-mavx512dq": "AVX512DQ",
    "-mavx512vl": "AVX512VL",
    "-mavx512vnni": "AVX512_VNNI",
    "-mavxvnni": "AVX_VNNI",
}
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are those of x86-64")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "kernels"
    folder.mkdir()
    for path in (*FOLDER.glob("*.[ch]"), FOLDER / "compile.py"):
        shutil.copy(path, folder)
    return folder


def script(path: Path, *lines: str) -> str:
    """A compiler that finds its output in $out and all its words in $*."""
    find = 'out= before=; for word; do [ "$before" = -o ] && out=$word; before=$word; done'
    path.write_text("\n".join(["#!/bin/sh", find, *lines]) + "\n")
    path.chmod(0o755)
    return str(path)


def writing(folder: Path) -> str:
    """A compiler that writes its arguments."""
    return script(folder / "writing", 'echo "$*" > "$out"')


def compile_with(compiler: str | None, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name not in ("CC", "CI")}
    given = {} if compiler is None else {"CC": compiler}
    return subprocess.run(
        [sys.executable, "-I", folder / "compile.py"],
        env=own | given | more, capture_output=True, text=True, check=False,
    )  # fmt: skip


def made(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix not in (".c", ".h", ".py"))


def named(folder: Path, *levels: str) -> list[str]:
    _fingerprint.cache_clear()
    return sorted(f"libhalimede-{level}-{_fingerprint(folder)}.so" for level in levels)


HERE = LIBRARIES if platform.machine() == "x86_64" else ["plain"]


def constants() -> dict[str, Any]:
    program = (
        "import json, runpy, sys; found = runpy.run_path(sys.argv[1]);"
        "print(json.dumps([found['LEVELS'], found['_fingerprint'](), found['levels']('aarch64')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, FOLDER / "compile.py"], capture_output=True, text=True, check=True
    )
    return dict(zip(("levels", "fingerprint", "elsewhere"), json.loads(done.stdout), strict=True))


def test_the_engine_looks_for_what_is_made() -> None:
    told = constants()
    assert list(told["levels"]) == LIBRARIES
    assert told["fingerprint"] == _fingerprint(FOLDER)


def test_other_machines_than_x86_64_have_the_plain_level_alone() -> None:
    assert constants()["elsewhere"] == ["plain"]


@pytest.mark.parametrize("ci", ["", "1"])
def test_warnings_are_errors_under_ci_alone(sources: Path, tmp_path: Path, ci: str) -> None:
    assert compile_with(writing(tmp_path), sources, CI=ci).returncode == 0
    assert made(sources) == named(sources, *HERE)
    for library in sources.glob("*.so"):
        assert ("-Werror" in library.read_text().split()) is bool(ci)


@pytest.mark.parametrize("changed", ["step.c", "vectors.h", "compile.py"])
def test_a_changed_source_is_another_library_and_the_old_one_goes(
    sources: Path, tmp_path: Path, changed: str
) -> None:
    compile_with(writing(tmp_path), sources)
    before = made(sources)
    (sources / "libhalimede.so").write_bytes(b"of a version without levels")
    (sources / changed).write_text((sources / changed).read_text() + "\n")
    compile_with(writing(tmp_path), sources)
    assert made(sources) == named(sources, *HERE)
    assert not set(before) & set(made(sources))


def test_what_has_been_made_is_not_made_again(sources: Path, tmp_path: Path) -> None:
    compile_with(writing(tmp_path), sources)
    again = compile_with(str(tmp_path / "no compiler"), sources)
    assert (again.returncode, again.stderr) == (0, "")
    assert made(sources) == named(sources, *HERE)


@x86
@pytest.mark.parametrize(("ci", "status"), [("", 0), ("1", 1)])
def test_a_level_that_the_compiler_does_not_know_is_left_out(
    sources: Path, tmp_path: Path, ci: str, status: int
) -> None:
    old = script(
        tmp_path / "old",
        'case "$*" in *-mavxvnni*)',
        "  echo 'In file included from nowhere:' >&2",
        "  echo \"cc1: error: unrecognized option '-mavxvnni'\" >&2",
        "  echo 'compilation terminated.' >&2",
        "  exit 1;;",
        "esac",
        'echo "$*" > "$out"',
    )
    done = compile_with(old, sources, CI=ci)
    assert done.returncode == status
    others = [level for level in LIBRARIES if level != "avxvnni"]
    assert made(sources) == named(sources, *others)
    assert done.stderr.splitlines() == [
        f"kernels: {old} cannot compile avxvnni: cc1: error: unrecognized option '-mavxvnni'",
        f"kernels: {', '.join(others)} compiled by {old}",
    ]


def test_a_new_warning_does_not_fail_an_installation(sources: Path, tmp_path: Path) -> None:
    """The real compiler warns where the source has what it warns of; only the plain level is compiled."""
    (sources / "threads.c").write_text((sources / "threads.c").read_text() + "\nstatic int never_used;\n")
    one = script(tmp_path / "one", 'case "$*" in *HALIMEDE_*) exit 1;; esac', 'exec cc "$@" -O0')
    assert compile_with(one, sources).returncode == 0
    assert made(sources) == named(sources, "plain")
    (sources / "threads.c").write_text((sources / "threads.c").read_text() + "\n")
    strict = compile_with(one, sources, CI="1")
    assert strict.returncode == 1
    assert made(sources) == []
    assert "cannot compile plain: " in strict.stderr
    assert "never_used" in strict.stderr


def test_without_a_compiler_nothing_is_made_and_that_is_said(sources: Path, tmp_path: Path) -> None:
    done = compile_with(None, sources, PATH=str(tmp_path))
    assert (done.returncode, made(sources)) == (0, [])
    assert done.stderr == ("kernels: no C compiler was found; engines run on ONNX Runtime, which is slower\n")


def test_a_compiler_that_is_asked_for_and_missing_is_named(sources: Path) -> None:
    done = compile_with("gcc-of-tomorrow -O1", sources)
    assert (done.returncode, made(sources)) == (0, [])
    assert done.stderr == (
        "kernels: the C compiler gcc-of-tomorrow -O1 (CC) was not found; "
        "engines run on ONNX Runtime, which is slower\n"
    )


def test_a_compiler_may_have_options(sources: Path, tmp_path: Path) -> None:
    compiler = f"{shlex.quote(writing(tmp_path))} --of-mine"
    assert compile_with(compiler, sources).returncode == 0
    assert made(sources) == named(sources, *HERE)
    for library in sources.glob("*.so"):
        assert library.read_text().startswith("--of-mine -std=c11")


def test_a_compiler_that_is_killed_halfway_leaves_nothing(sources: Path, tmp_path: Path) -> None:
    killed = script(tmp_path / "killed", 'printf half > "$out"', "kill -KILL $$")
    done = compile_with(killed, sources)
    assert (done.returncode, made(sources)) == (0, [])
    assert done.stderr.splitlines() == [
        *(f"kernels: {killed} cannot compile {level}: exit status -9" for level in HERE),
        f"kernels: none compiled by {killed}",
    ]


def test_what_a_killed_run_left_is_removed(sources: Path, tmp_path: Path) -> None:
    parent = script(tmp_path / "parent", 'printf half > "$out"', "kill -KILL $PPID")
    assert compile_with(parent, sources).returncode == -9
    left = made(sources)
    assert left
    assert not [name for name in left if name.endswith(".so")]
    compile_with(writing(tmp_path), sources)
    assert made(sources) == named(sources, *HERE)


@pytest.mark.timeout(60)
def test_two_runs_at_a_time_do_not_disturb_each_other(sources: Path, tmp_path: Path) -> None:
    """The second one comes while the first one's compiler waits."""
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    slow = script(tmp_path / "slow", f"read -r _ < {tmp_path / 'gate'}", 'echo "$*" > "$out"')
    first, second = (started(sources, compiler) for compiler in (slow, "false"))
    with first, second:
        os.write(gate, b"go\n" * 64)
        assert (first.wait(60), second.wait(60)) == (0, 0)
    os.close(gate)
    assert made(sources) == named(sources, *HERE)


def started(folder: Path, compiler: str) -> subprocess.Popen[str]:
    """Once it has the lock, or has come to wait for it."""
    environment = {**os.environ, "CC": compiler, "CI": ""}
    run = subprocess.Popen([sys.executable, folder / "compile.py"], env=environment, text=True)
    while not re.search(rf"FLOCK +ADVISORY +WRITE {run.pid} ", Path("/proc/locks").read_text()):
        assert run.poll() is None
    return run


@x86
@pytest.mark.parametrize("level", LIBRARIES)
def test_a_library_asks_for_what_it_is_compiled_for(level: str) -> None:
    flags = [flag for flag in constants()["levels"][level] if flag.startswith("-m")]
    needs = instructions(_compiled(level).halimede_needs())
    assert sorted(needs) == sorted(FLAGS[flag] for flag in flags)


@x86
@pytest.mark.exact
def test_the_processor_is_asked_itself() -> None:
    """Against what numpy finds by CPUID with code of its own, which does not ask for AVX-VNNI."""
    has = instructions(_compiled("plain").halimede_has())
    names = {"FMA": "FMA3", "AVX512_VNNI": "AVX512VNNI"}
    for name in INSTRUCTIONS:
        if name != "AVX_VNNI":
            assert (name in has) is multiarray.__cpu_features__[names.get(name, name)], name


def _compiled(level: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(FOLDER / f"libhalimede-{level}-{_fingerprint(FOLDER)}.so"))


def fake(folder: Path, name: str, needs: int = 0, has: int = 0) -> None:
    """A library that says what it needs and what the processor has."""
    others = " ".join(f"void halimede_{of}(void) {{}}" for of in ("open", "run", "close", "scratch"))
    asks = (
        f"unsigned halimede_needs(void) {{ return {needs}; }} unsigned halimede_has(void) {{ return {has}; }}"
    )
    target = folder / f"libhalimede-{name}-{_fingerprint(folder)}.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", target],
        input=f"{others}\n{asks}\n",
        text=True,
        check=True,
    )


@pytest.mark.parametrize(
    ("missing", "needs", "has", "wanted"),
    [
        ([], 0, 0, "avx512"),
        (["avx512"], 0, 0, "avxvnni"),
        (["avx512", "avxvnni"], 0, 0, "avxvnni"),
        (["avx512", "avxvnni", "avxvnni-evex"], 0, 0, "avx2"),
        ([], 0b1, 0b0, "plain"),
    ],
)
def test_the_next_best_level_is_taken(
    tmp_path: Path, missing: list[str], needs: int, has: int, wanted: str
) -> None:
    for name in LIBRARIES:
        if name not in missing:
            fake(tmp_path, name, needs if name != "plain" else 0, has)
    assert load_kernels(folder=tmp_path).level == wanted


def test_a_level_that_cannot_be_loaded_is_passed_over(tmp_path: Path) -> None:
    fake(tmp_path, "plain")
    (tmp_path / f"libhalimede-avx2-{_fingerprint(tmp_path)}.so").write_bytes(b"no library")
    assert load_kernels(folder=tmp_path).level == "plain"
    with pytest.raises(KernelsMissing, match=r"^libhalimede-avx2-\w+\.so cannot be loaded \("):
        load_kernels(["avx2"], tmp_path)
    with pytest.raises(
        KernelsMissing, match=r"^libhalimede-avx512-\w+\.so has not been compiled: make kernels$"
    ):
        load_kernels(["avx512"], tmp_path)


@pytest.mark.parametrize(
    ("needs", "has", "lacking"),
    [
        (0b011111111, 0b000000111, "AVX512F, AVX512BW, AVX512DQ, AVX512VL, AVX512_VNNI"),
        (0b000000111, 0b111111110, "AVX2"),
        (0b100000111, 0b011111111, "AVX_VNNI"),
    ],
)
def test_a_processor_that_lacks_an_instruction_is_named(
    tmp_path: Path, needs: int, has: int, lacking: str
) -> None:
    fake(tmp_path, "avx2", needs, has)
    with pytest.raises(KernelsMissing, match=f"^the processor has no {lacking}$"):
        load_library(tmp_path, "avx2")

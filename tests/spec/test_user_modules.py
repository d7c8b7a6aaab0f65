"""User modules: importing them, and the hash of their source."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.spec import user_modules
from supsup_core.errors import InputError
from supsup_core.nets import NETS


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Removes the modules and folders that a test imports from `sys.modules` and `sys.path`."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)


TOY = """
from dataclasses import dataclass
from supsup_core.nets import NETS, Layer, Net
from {helper} import WIDTH

@NETS.register("{name}")
@dataclass(frozen=True, kw_only=True)
class Toy(Net):
    def layers(self, input_shape):
        return (Layer("only", (self.num_outputs, WIDTH), WIDTH),)

    def forward(self, weights, x):
        return x @ weights[0].t()
"""


def test_an_edit_to_a_constant_in_an_imported_module_changes_the_keys(
    sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    """A constant has no `__module__`, so only the import statement shows the module that defines it."""
    (tmp_path / "user_net.py").write_text(TOY.format(name="user_net", helper="user_helper"))
    file = sweep_file(net={"name": "user_net", "num_outputs": 10}, imports=["user_net.py"], scenario="GG")
    code = (
        "import sys; from pathlib import Path; from orchestrator.sweeps.sweep import open_sweep\n"
        "print(open_sweep(Path(sys.argv[1]), []).plan()[0].shards[0].key)"
    )
    keys = []
    for content in ("WIDTH = 64", "WIDTH = 32", "WIDTH = 64"):
        (tmp_path / "user_helper.py").write_text(content)
        found = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
        keys.append(found.stdout)
    assert keys[0] == keys[2] != keys[1]


def test_a_file_is_loaded_once_and_its_neighbours_can_be_imported(tmp_path: Path) -> None:
    write(tmp_path, um_one="import um_two\nLOADS = um_two.LOADS\nLOADS.append(1)\n", um_two="LOADS = []\n")
    for _ in range(2):
        user_modules.load(["um_one.py"], tmp_path)
    assert sys.modules["um_one"].LOADS == [1]


def test_a_copy_of_a_loaded_file_is_the_same_module_and_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for folder in (tmp_path, tmp_path / "copy"):
        write(folder, um_same="WIDTH = 1\n")
    user_modules.load(["um_same.py"], tmp_path)
    user_modules.load(["um_same.py"], tmp_path / "copy")
    write(tmp_path / "copy", um_same="WIDTH = 2\n")
    with pytest.raises(
        InputError, match=r"imports: um_same\.py: Python has already loaded another module called 'um_same'; rename"
    ):
        user_modules.load(["um_same.py"], tmp_path / "copy")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("um_absent.py", r"imports: um_absent\.py: no such file"),
        ("um_absent", "imports: um_absent: cannot be imported: ModuleNotFoundError"),
        ("um_broken.py", r"imports: um_broken\.py: cannot be imported: ZeroDivisionError: division by zero"),
        ("um_exits.py", r"imports: um_exits\.py: already registered"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, entry: str, message: str) -> None:
    write(
        tmp_path,
        um_broken="1 / 0\n",
        um_exits="from supsup_core.errors import InputError\nraise InputError('already registered')\n",
    )
    with pytest.raises(InputError, match=message):
        user_modules.load([entry], tmp_path)
    assert Path(entry).stem not in sys.modules


def test_classes_of_this_project_have_no_source_digest() -> None:
    assert user_modules.source_digest(NETS["lenet_300_100"]) is None


def test_a_digest_covers_the_modules_that_are_imported_directly_or_indirectly(tmp_path: Path) -> None:
    write(
        tmp_path,
        um_first="import json\nimport um_second\nclass Net: pass\n",
        um_second="def f():\n    from um_third import WIDTH\n",
        um_third="WIDTH = 1\n",
        um_other="",
    )
    user_modules.load(["um_first.py", "um_third.py", "um_other.py"], tmp_path)
    net = sys.modules["um_first"].Net
    before = user_modules.source_digest(net)
    write(tmp_path, um_other="WIDTH = 2\n")
    assert user_modules.source_digest(net) == before
    write(tmp_path, um_third="WIDTH = 2\n")
    assert user_modules.source_digest(net) != before
    found = user_modules.sources(["um_first.py"], tmp_path)
    assert sorted(map(str, found)) == ["um_first.py", "um_second.py", "um_third.py"]
    assert found[Path("um_third.py")] == b"WIDTH = 2\n"


def test_only_files_can_be_copied(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"imports: json is not a \.py file"):
        user_modules.sources(["json"], tmp_path)

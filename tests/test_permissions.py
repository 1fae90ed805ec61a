from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ctxrecon.permissions import with_umask_mode

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")


@pytest.fixture(params=[0o022, 0o007, 0o077])
def new_file_mode(request):
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_gets_the_mode_of_a_new_one(tmp_path, new_file_mode):
    path = tmp_path / "a"
    path.touch(0o600)
    with_umask_mode(path)
    assert mode(path) == new_file_mode
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_all_files_of_a_folder_do_but_none_outside(tmp_path, new_file_mode):
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o604)
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (folder / name).touch(0o600)
    (folder / "link").symlink_to(outside)
    with_umask_mode(folder)
    assert {mode(folder / "a"), mode(folder / "deep/b")} == {new_file_mode}
    assert mode(outside) == 0o604
    assert len(list(folder.iterdir())) == 3

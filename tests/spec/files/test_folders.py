"""Which files of a folder are meant: not what hides, not leftovers, not read-me files, no circles."""

from __future__ import annotations

import os

import pytest

from fedsim.files.folders import contents, listed
from fedsim.files.opened import UnreadableError

SUFFIXES = (".txt", ".csv")


def made(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a\n")


def names(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_files_of_the_suffixes_in_any_case_and_what_is_left_out(tmp_path):
    made(
        tmp_path,
        "b.TXT",
        "a.csv",
        "deep/er/c.Txt",
        "d.pdf",
        "no_suffix",
        "README.md",
        "x/License.txt",
        "readme.csv",
    )
    found = contents(tmp_path, SUFFIXES)
    assert names(tmp_path, found.files) == ["a.csv", "b.TXT", "deep/er/c.Txt", "readme.csv"]
    assert names(tmp_path, found.left_out) == ["README.md", "d.pdf", "no_suffix", "x/License.txt"]
    assert listed(tmp_path, found.left_out, most=2) == "README.md, d.pdf and 2 more"


def test_what_hides_and_what_systems_leave_is_passed_over(tmp_path):
    made(
        tmp_path,
        "a.txt",
        "._a.txt",
        ".hidden/b.txt",
        ".ipynb_checkpoints/a.txt",
        "__MACOSX/a.txt",
        "Thumbs.db",
    )
    made(tmp_path, "sub/desktop.ini", "sub/.DS_Store", "sub/~$a.txt", "sub/__pycache__/c.txt")
    found = contents(tmp_path, SUFFIXES)
    assert names(tmp_path, found.files) == ["a.txt"]
    assert found.left_out == ()


def test_the_folder_itself_may_hide_or_be_a_link(tmp_path):
    made(tmp_path, ".data/a.txt")
    (tmp_path / "link").symlink_to(tmp_path / ".data")
    for folder in (tmp_path / ".data", tmp_path / "link"):
        assert names(folder, contents(folder, SUFFIXES).files) == ["a.txt"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path):
    made(tmp_path, "blobs/1", "data/b.txt")
    data = tmp_path / "data"
    (data / "a.txt").symlink_to(tmp_path / "blobs" / "1")
    (data / "again").symlink_to(data)
    (data / "up").symlink_to(tmp_path)
    (data / "gone.txt").symlink_to(tmp_path / "nothing")
    (data / "self.txt").symlink_to(data / "self.txt")
    found = contents(data, SUFFIXES)
    assert names(data, found.files) == ["a.txt", "b.txt"]
    assert names(data, found.left_out) == ["again", "gone.txt", "self.txt", "up"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_listed_is_said(tmp_path):
    made(tmp_path, "a.txt", "shut/b.txt")
    (tmp_path / "shut").chmod(0)
    try:
        with pytest.raises(UnreadableError, match="shut cannot be listed"):
            contents(tmp_path, SUFFIXES)
    finally:
        (tmp_path / "shut").chmod(0o700)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UnreadableError, match="cannot be listed"):
        contents(tmp_path / "nothing", SUFFIXES)

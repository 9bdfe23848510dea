"""Links to directories are counted, and links that leave the source directory are not read.

In an earlier release, skipped links were not counted, and a link to a system file became training text.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from groundup.corpus.sources import FolderSource
from groundup.corpus.sources.archive import list_members

pytestmark = pytest.mark.skipif(os.name == "nt", reason="on Windows, only privileged users can create links")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    (outside / "more").mkdir(parents=True)
    (outside / "secret.txt").write_text("outside")
    (outside / "more" / "deep.txt").write_text("deep")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / ".versions").mkdir()
    (root / "a.txt").write_text("a")
    (root / "sub" / "b.txt").write_text("b")
    (root / ".versions" / "3.txt").write_text("hidden")
    os.mkfifo(root / "pipe")
    links = {
        "out.txt": outside / "secret.txt",
        "up.txt": Path("../outside/secret.txt"),
        "roundabout.txt": Path("sub/../../root/a.txt"),
        "again.txt": Path("sub/b.txt"),
        "current.txt": Path(".versions/3.txt"),
        "broken.txt": Path("nothing"),
        "one.txt": Path("two.txt"),
        "two.txt": Path("one.txt"),
        "zero.txt": Path("/dev/zero"),
        "wire.txt": Path("pipe"),
        "other": outside,
        "self": Path(),
        "above": Path(".."),
        "inner": Path("sub"),
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    return root


def listed(source: FolderSource) -> tuple[list[str], dict[str, str]]:
    items = source.items()
    return [item.path for item in items if not item.refused], {i.path: i.refused for i in items if i.refused}


def test_links_are_counted_and_stay_inside(folder: Path) -> None:
    read, refused = listed(FolderSource(path=folder))
    assert read == ["a.txt", "current.txt", "sub/b.txt"]
    assert refused == {
        "out.txt": "symbolic link out of the folder",
        "up.txt": "symbolic link out of the folder",
        "zero.txt": "symbolic link out of the folder",
        "roundabout.txt": "symbolic link to a path that is read anyway",
        "again.txt": "symbolic link to a path that is read anyway",
        "broken.txt": "broken symbolic link",
        "one.txt": "broken symbolic link",
        "two.txt": "broken symbolic link",
        "pipe": "not a regular file",
        "wire.txt": "symbolic link to a path that is read anyway",
        "other": "symbolic link to a folder",
        "self": "symbolic link to a folder",
        "above": "symbolic link to a folder",
        "inner": "symbolic link to a folder",
    }


def test_links_are_followed_if_set_and_cycles_end(folder: Path) -> None:
    read, refused = listed(FolderSource(path=folder, follow_symlinks=True))
    assert read == [
        "a.txt", "current.txt", "other/more/deep.txt", "other/secret.txt", "out.txt", "sub/b.txt", "up.txt",
    ]  # fmt: skip
    assert refused["zero.txt"] == "not a regular file"
    assert refused["self"] == refused["above"] == refused["inner"] == "symbolic link to a path that is read anyway"


def test_a_link_given_as_the_directory_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(folder)
    assert listed(FolderSource(path=tmp_path / "alias")) == listed(FolderSource(path=folder))


def test_a_file_replaced_by_a_link_is_not_read(folder: Path) -> None:
    source = FolderSource(path=folder, files=["a.txt"])
    ((_, opener),) = source.open_items(item for item in source.items() if not item.refused)
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(folder.parent / "outside" / "secret.txt")
    with pytest.raises(OSError, match="out of the folder"):
        opener()


def test_a_link_in_a_zip_is_not_text(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
        file.writestr("plain.txt", "text")
    assert {item.path: item.refused for item in list_members(tmp_path / "x.zip")} == {
        "link.txt": "not a regular file",
        "plain.txt": "",
    }

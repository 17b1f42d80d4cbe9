"""Vectors that clients keep: on disk, immutable views, an index of a few bytes a client in RAM."""

from __future__ import annotations

import gc
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.errors import RunFolderError
from fedsim.files.checkpoint.kept_again import KeptAgain
from fedsim.files.client_vectors import NO_VECTORS, ClientVectors


def vector(*values):
    return np.array(values, np.float32)


def plain(kept):
    return {client: kept.get(client).tolist() for client in kept}


def test_nobody_keeps_anything_at_first():
    assert len(NO_VECTORS) == 0
    assert not NO_VECTORS
    assert 3 not in NO_VECTORS
    assert NO_VECTORS.get(3) is None
    assert list(NO_VECTORS) == []
    assert NO_VECTORS.including({}) is NO_VECTORS


def test_values_come_back_to_the_bit():
    odd = np.array([np.nan, np.inf, -0.0, 1e-45, 1 / 3], np.float32)

    found = NO_VECTORS.including({7: odd}).get(7)

    assert found.tobytes() == odd.tobytes()
    assert found.dtype == np.float32
    assert not found.flags.writeable


def test_a_view_keeps_its_values_whatever_later_views_are_given():
    first = NO_VECTORS.including({1: vector(1, 1), 2: vector(2, 2)})
    second = first.including({2: vector(20, 20), 3: vector(3, 3)})
    sibling = first.including({1: vector(-1, -1)})

    assert plain(first) == {1: [1, 1], 2: [2, 2]}
    assert plain(second) == {1: [1, 1], 2: [20, 20], 3: [3, 3]}
    assert plain(sibling) == {1: [-1, -1], 2: [2, 2]}
    assert len(NO_VECTORS) == 0


moves = st.lists(
    st.tuples(
        st.integers(0, 5), st.dictionaries(st.integers(0, 400), st.integers(-9, 9), max_size=4), st.booleans()
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(moves)
def test_a_view_answers_like_a_dictionary_that_never_changes(given_):
    """Grow views from any older view and drop some: each holds what a dictionary would."""
    views = [(NO_VECTORS, {})]
    for parent, changes, drop in given_:
        kept, expected = views[parent % len(views)]
        grown = kept.including({client: vector(value, -value) for client, value in changes.items()})
        views.append((grown, {**expected, **{client: [value, -value] for client, value in changes.items()}}))
        if drop and len(views) > 2:
            del views[1], kept, expected, grown
        for found, wanted in views:
            assert plain(found) == wanted
            assert list(found) == sorted(wanted)
            assert len(found) == len(wanted)


def test_slots_are_reused_once_no_view_points_to_them(tmp_path):
    path = tmp_path / "own.f32"
    kept = ClientVectors(path).including({client: np.full(100, client, np.float32) for client in range(10)})
    held = kept
    for turn in range(20):
        kept = kept.including({3: np.full(100, turn, np.float32)})

    # a head, ten clients, the value that `held` keeps, and the one that is written while its predecessor lives
    assert path.stat().st_size == 16 + 12 * (20 + 400)
    assert held.get(3)[0] == 3
    assert kept.get(3)[0] == 19


def test_ram_grows_by_the_index_and_not_by_the_vectors():
    """1,000 clients of 32 KiB each are 31 MiB on disk."""
    clients, size = 1000, 8192
    kept = NO_VECTORS.including({0: np.zeros(size, np.float32)})
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for client in range(1, clients):
        kept = kept.including({client: np.full(size, client, np.float32)})
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(kept) == clients
    assert now - before < 400 * clients
    assert peak - before < 400 * clients + 5 * 4 * size
    assert kept.get(999)[-1] == 999


def test_a_temporary_file_has_no_name_and_is_closed_with_its_last_view(tmp_path, monkeypatch):
    import tempfile

    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gc.collect()  # so that no file of another test closes meanwhile
    before = opened()
    kept = NO_VECTORS.including({1: vector(5, 6)})

    assert list(tmp_path.iterdir()) == []
    assert opened() == before + 1
    del kept
    assert opened() == before


def test_the_file_is_as_documented(tmp_path):
    path = tmp_path / "kept" / "own.f32"
    kept = ClientVectors(path).including({4: vector(1.5, -2)})
    data = path.read_bytes()

    assert repr(kept).endswith(f"vectors of 1 clients in {path}>")
    assert struct.unpack_from("<8sq", data) == (b"fedkept1", 2)
    assert struct.unpack_from("<qq", data, 16) == (4, 1)
    assert struct.unpack_from("<2f", data, 36) == (1.5, -2)
    assert len(data) == 16 + 20 + 8


def test_a_killed_process_leaves_the_last_whole_record_of_every_client(tmp_path):
    path = tmp_path / "own.f32"
    kept = ClientVectors(path).including({1: vector(1, 1), 2: vector(2, 2)})
    newer = kept.including({2: vector(22, 22)})
    with path.open("ab") as file:
        file.write(b"half a record")

    found = ClientVectors.read(path)
    assert plain(found) == plain(newer)
    assert plain(found.including({3: vector(3, 3)})) == {1: [1, 1], 2: [22, 22], 3: [3, 3]}


def test_a_record_that_was_being_written_is_not_read(tmp_path):
    path = tmp_path / "own.f32"
    kept = ClientVectors(path).including({1: vector(1, 1)})
    kept.including({1: vector(9, 9)})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the second record
    path.write_bytes(data)

    assert plain(ClientVectors.read(path)) == {1: [1, 1]}


@pytest.mark.parametrize("content", [b"", b"fedkept1", b"something else, long enough for a head"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "own.f32"
    path.write_bytes(content)

    with pytest.raises(RunFolderError, match="holds no vectors"):
        ClientVectors.read(path)
    with pytest.raises(RunFolderError, match="cannot be read"):
        ClientVectors.read(tmp_path / "none")


def test_a_long_file_of_holes_is_refused_at_once(tmp_path):
    path = tmp_path / "own.f32"
    ClientVectors(path).including({1: vector(1, 1)})
    os.truncate(path, 2**40)  # reading it slot by slot would take hours

    with pytest.raises(RunFolderError, match="consists of holes"):
        ClientVectors.read(path)


def test_a_run_that_goes_on_cuts_off_what_lies_behind_its_last_slot(tmp_path):
    path = tmp_path / "own.f32"
    kept = ClientVectors(path).including({1: vector(1, 1), 2: vector(2, 2), 3: vector(3, 3)})
    clients, slots, stamps = (column[1:2] for column in kept.places())  # a checkpoint knew client 2 alone
    os.truncate(path, 2**40)

    again = KeptAgain(tmp_path)
    found = again.view(path.name, path.name, clients, slots, stamps)
    again.go_on()

    assert path.stat().st_size == 16 + 2 * (20 + 8)
    newer = found.including({7: vector(7, 7), 8: vector(8, 8)})
    assert plain(newer) == {2: [2, 2], 7: [7, 7], 8: [8, 8]}
    assert path.stat().st_size == 16 + 3 * (20 + 8)
    assert plain(ClientVectors.read(path)) == plain(newer)


def test_vectors_of_one_view_are_equally_long_and_flat():
    kept = NO_VECTORS.including({1: vector(1, 2)})

    with pytest.raises(ValueError, match=r"client 2 keeps a vector of shape \(3,\), not \(2,\)"):
        kept.including({2: vector(1, 2, 3)})
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        NO_VECTORS.including({1: np.ones((1, 2), np.float32)})


def test_views_that_share_nothing_do_not_share_a_file(tmp_path):
    empty = ClientVectors(tmp_path / "own.f32")
    one, other = empty.including({1: vector(1)}), empty.including({1: vector(1, 2)})

    assert (one.get(1).size, other.get(1).size) == (1, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own-2.f32", "own.f32"]

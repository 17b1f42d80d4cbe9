"""Values as explicit data: what comes back, as one object where it was one; what is refused by name."""

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest

from fedsim.adapters.adapter import Adapter, Layout, Tensor
from fedsim.errors import RunFolderError
from fedsim.files.checkpoint.kept_again import KeptAgain
from fedsim.files.checkpoint.plain_values import DamagedError, Held, Restored, UnholdableError
from fedsim.files.client_vectors import ClientVectors
from fedsim.optimizers._base import Moments

LAYOUT = Layout(tensors=(Tensor("w", (3,)),))


@dataclass(frozen=True)
class State:
    name: str
    ranks: dict[int, int]
    vector: np.ndarray = field(repr=False)
    inner: object = None


class Pair(NamedTuple):
    a: object
    b: object


@dataclass
class Loose:
    a: int


@dataclass(frozen=True)
class Drawn:
    a: int = field(init=False, default=3)


def through(value, folder=None, known=None):
    """A value, taken apart and put together again by way of JSON."""
    known = known or {}
    held = Held(known, {__name__}, folder)
    tree = json.loads(json.dumps(held.tree(value, "it")))
    arrays = {name: np.array(array, copy=True) for name, array in held.arrays.items()}
    return Restored(tree, arrays, known, {__name__}, None if folder is None else KeptAgain(folder)).value()


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 2**80, -0.0, 1e-300, float("inf"), "text \x00 <script>", [], (), {}, [1, (2, [3.5, None])],
        {1: "a", (2, 3): "b", None: {"x": 1}}, State("s", {3: 1}, np.zeros(2), ("a", State("t", {}, np.ones(1)))).name,
    ],
)  # fmt: skip
def test_plain_values_come_back(value):
    again = through(value)

    assert again == value
    assert type(again) is type(value)


def test_nan_comes_back():
    assert np.isnan(through([float("nan")])[0])


def test_numbers_of_numpy_keep_their_type():
    for number in (np.float32(0.1), np.int64(3), np.bool_(True), np.float64("nan")):
        again = through(number)
        assert type(again) is type(number)
        assert again.tobytes() == number.tobytes()


def test_arrays_keep_type_shape_values_and_whether_they_can_be_written():
    read_only = np.arange(6, dtype=np.float32).reshape(2, 3)
    read_only.flags.writeable = False
    again = through({"a": read_only, "b": np.zeros((0, 2)), "c": np.array(1.5)})

    assert again["a"].tobytes() == read_only.tobytes()
    assert again["a"].shape == (2, 3)
    assert not again["a"].flags.writeable
    assert again["b"].shape == (0, 2)
    assert again["b"].flags.writeable
    assert again["c"].shape == ()


def test_one_object_in_two_places_is_one_object_again_and_equal_ones_stay_two():
    vector, other = np.ones(3), np.ones(3)
    state = State("s", {}, vector)
    again = through([vector, vector, other, state, state])

    assert again[0] is again[1]
    assert again[0] is not again[2]
    assert again[3] is again[4]
    assert again[3].vector is again[0]


def test_views_of_one_memory_are_stored_once_and_stay_two_objects():
    vector = np.ones(1000)
    view = vector.view()
    held = Held({})
    held.tree([vector, view], "it")
    again = through([vector, view])

    assert len(held.arrays) == 1
    assert again[0] is not again[1]
    assert np.shares_memory(again[0], again[1])


def test_frozen_dataclasses_and_named_tuples_come_back():
    state = State("s", {3: 1}, np.arange(3.0), Pair(1, [np.int64(2)]))
    again = through((state, Moments(2, np.ones(2), np.zeros(2))))

    assert again[0].name == "s"
    assert again[0].ranks == {3: 1}
    assert again[0].inner == Pair(1, [2])
    assert type(again[0].inner) is Pair
    assert again[1].peak is None


def test_what_both_sides_know_is_not_stored():
    adapter = Adapter(LAYOUT, np.zeros(3, np.float32))
    again = through(adapter, known={"layout": LAYOUT})

    assert again.layout is LAYOUT
    assert not again.vector.flags.writeable


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.random.default_rng(0), "it is a Generator"),
        ({"a": [1, {2}]}, r"it\['a'\]\[1\] is a set"),
        (OrderedDict(a=1), "it is a OrderedDict"),
        (Loose(1), "it is a Loose"),
        (Drawn(), "it is a Drawn"),
        (Fraction(1, 2), "it is a Fraction"),
        (lambda: 1, "it is a function"),
        (np.array(["a", None], dtype=object), "it is a object array"),
        (np.array([1j]), "it is a complex128 array"),
        (State("s", {}, np.zeros(1), open), r"it\.inner is a builtin_function"),
    ],
)  # fmt: skip
def test_what_cannot_be_held_is_refused_by_name_and_place(value, named):
    with pytest.raises(UnholdableError, match=named):
        through(value)


def test_what_holds_itself_is_refused():
    circle = []
    circle.append(circle)
    with pytest.raises(UnholdableError, match="holds itself"):
        through(circle)


def test_a_class_inside_a_function_is_refused():
    @dataclass(frozen=True)
    class Inside:
        a: int = 1

    with pytest.raises(UnholdableError, match="Inside"):
        through(Inside())


def test_classes_of_other_modules_are_refused_both_ways():
    held = Held({}, set())
    with pytest.raises(UnholdableError, match="State"):
        held.tree(State("s", {}, np.zeros(1)), "it")

    tree = {
        "objects": [{"class": [__name__, "State"], "fields": ["s", {"dict": []}, None, None]}],
        "root": {"object": 0},
    }
    with pytest.raises(DamagedError, match="no class"):
        Restored(tree, {}, {}, set()).value()


@pytest.mark.parametrize(
    "node",
    [
        {"class": ["os", "system"], "fields": ["true"]},
        {"class": ["fedsim.runs.simulation", "simulate"], "fields": []},
        {"class": ["fedsim.errors", "FedsimError"], "fields": ["x"]},
        {"class": ["fedsim.not_imported_yet", "Thing"], "fields": []},
        {"class": ["fedsim.jobs", "Probe.__init__"], "fields": []},
        {"class": ["fedsim.jobs", "Probe"], "fields": [1]},
        {"array": "9", "writeable": True},
        {"vectors": [None, "../../etc/passwd", {"object": 1}, {"object": 1}, {"object": 1}]},
        {"object": 0},
    ],
)
def test_a_forged_object_is_refused(node, tmp_path):
    arrays = {"0": np.zeros(0, np.int64)}
    tree = {"objects": [node, {"array": "0", "writeable": False}], "root": {"object": 0}}
    with pytest.raises(DamagedError):
        Restored(tree, arrays, {}, set(), KeptAgain(tmp_path)).value()


@pytest.mark.parametrize(
    "root",
    [{"object": -1}, {"object": 7}, {"object": True}, {"known": "x"}, {"exec": "1"}, {}, {"tuple": 3}, {"dict": [[1]]}, {"tuple": [], "list": []}],
)  # fmt: skip
def test_a_forged_tree_is_refused(root):
    with pytest.raises(DamagedError):
        Restored({"objects": [], "root": root}, {}, {}).value()


@pytest.mark.parametrize("tree", [None, [], {}, {"objects": 3, "root": None}])
def test_no_tree_is_refused(tree):
    with pytest.raises(DamagedError):
        Restored(tree, {}, {}).value()


# what clients keep ------------------------------------------------------------------------------


def test_a_view_of_what_clients_keep_comes_back_after_others_were_written(tmp_path):
    path = tmp_path / "kept" / "a.f32"
    view = ClientVectors(path).including({c: np.full(4, c, np.float32) for c in range(300)})
    held = Held({}, set(), path.parent)
    tree = held.tree([view, view], "it")
    later = view.including({7: np.full(4, -1, np.float32), 300: np.full(4, 9, np.float32)})
    kept = KeptAgain(path.parent)
    again = Restored(tree, held.arrays, {}, set(), kept).value()
    kept.go_on()

    assert again[0] is again[1]
    assert [int(again[0].get(c)[0]) for c in (0, 7, 299)] == [0, 7, 299]
    assert 300 not in again[0]
    more = again[0].including({5: np.full(4, 55, np.float32)})
    assert more.path == path
    assert int(again[0].get(5)[0]) == 5
    assert int(ClientVectors.read(path).get(5)[0]) == 55
    assert int(later.get(7)[0]) in (-1, 55)  # the slots of what came later are used again


def test_a_view_whose_record_was_overwritten_is_refused(tmp_path):
    path = tmp_path / "a.f32"
    view = ClientVectors(path).including({1: np.ones(4, np.float32)})
    held = Held({}, set(), tmp_path)
    tree = held.tree(view, "it")
    del view
    held.views.clear()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(RunFolderError, match="does not hold any more what client 1 had kept"):
        Restored(tree, held.arrays, {}, set(), KeptAgain(tmp_path)).value()


def test_vectors_in_a_temporary_file_or_elsewhere_are_refused(tmp_path):
    view = ClientVectors().including({1: np.ones(4, np.float32)})
    with pytest.raises(UnholdableError, match="temporary file"):
        Held({}, set(), tmp_path).tree(view, "the state")
    with pytest.raises(UnholdableError, match="another folder"):
        Held({}, set(), tmp_path / "kept").tree(ClientVectors(tmp_path / "a.f32"), "the state")


def test_empty_views_come_back_and_make_their_file_where_they_would_have(tmp_path):
    again = through([ClientVectors(tmp_path / "a.f32"), ClientVectors()], tmp_path)

    assert [len(view) for view in again] == [0, 0]
    assert again[0].path == tmp_path / "a.f32"
    assert again[1].path is None


def test_files_that_no_view_is_of_go(tmp_path):
    ClientVectors(tmp_path / "later.f32").including({1: np.ones(4, np.float32)})
    kept = KeptAgain(tmp_path)
    kept.go_on()

    assert not (tmp_path / "later.f32").exists()

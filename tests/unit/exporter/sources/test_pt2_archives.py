"""A pt2 archive of a hostile author: nothing that it holds runs, however it is edited."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import typing
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._export.serde import schema

from exporter.errors import ValidationFailedError
from exporter.sources.base import InputRejectedError
from exporter.sources.mlmodel import MLModel
from exporter.sources.pytorch.program_source import ExportedProgramSource
from exporter.sources.pytorch.pt2_archive import load_program
from exporter.sources.pytorch.pt2_expressions import check_guard, check_size
from exporter.sources.pytorch.pt2_rules import RULES, is_arithmetic
from exporter.sources.pytorch.pt2_schema import _DROPPED, _fields, check_program
from tests.support.pt2_archives import (
    MODEL,
    entries,
    mixed_program,
    pickled,
    save,
    with_graph,
    write,
)

INPUTS = "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    return mixed_program()


@pytest.fixture(scope="module")
def records(
    program: torch.export.ExportedProgram, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    return save(program, tmp_path_factory.mktemp("pt2") / "model.pt2")


@pytest.fixture
def fired(tmp_path: Path) -> Path:
    """A file that exists once code of an archive has run."""
    return tmp_path / "fired"


def run(path: Path) -> None:
    """Do with an archive what an export does first: load it, print its source, run it."""
    program = load_program(path)
    arguments, keywords = program.example_inputs or ((), {})
    program.module()(*arguments, **keywords)


def test_an_archive_computes_what_its_program_does(
    program: torch.export.ExportedProgram, records: dict[str, bytes], tmp_path: Path
) -> None:
    loaded = load_program(write(tmp_path / "model.pt2", records))
    rows = {"x": torch.randn(7, 3), "w": torch.arange(7)}
    answer, expected = loaded.module()(rows, "same"), program.module()(rows, "same")
    assert torch.equal(answer["y"], expected["y"])
    assert torch.equal(answer["z"][0], expected["z"][0])
    with pytest.raises(AssertionError, match="Guard failed"):
        loaded.module()({"x": torch.randn(7, 3), "w": torch.arange(6)}, "same")


def renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {new if k == old else k: renamed(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(item, old, new) for item in value]
    return new if value == old else value


def call_of(graph: Any) -> Any:
    return graph["graph_module"]["module_call_graph"][0]["signature"]


def node_of(graph: Any, **node: Any) -> None:
    node = {"outputs": [{"as_none": True}], "metadata": {}, "name": "added", **node}
    graph["graph_module"]["graph"]["nodes"].insert(0, node)


def argument(value: Any, name: str = "") -> Any:
    return {"name": name, "arg": value, "kind": 2 if name else 1}


def _string_constant(graph: Any, fired: Path) -> Any:
    return renamed(graph, "same", f"""same' and open("{fired}", "w").close() or '""")


def _string_as_number(graph: Any, fired: Path) -> Any:
    held = next(i for i in graph["graph_module"]["graph"]["inputs"] if "as_string" in i)
    held.clear()
    held["as_int"] = f"""same' and open("{fired}", "w").close() or '"""
    return graph


def _placeholder(graph: Any, fired: Path) -> Any:
    return renamed(graph, "batch_x", f"x=open('{fired}','w')")


def _parameter(graph: Any, fired: Path) -> Any:
    return renamed(graph, "layers.0.weight", f"""w"+str(open("{fired}","w"))+\"""")


def _keyword(graph: Any, fired: Path) -> Any:
    operator = "torch.ops.higher_order.wrap"
    node_of(graph, target=operator, inputs=[argument({"as_int": 1}, f"a=open('{fired}','w'),b")])
    return graph


def _forward_argument(graph: Any, fired: Path) -> Any:
    call_of(graph)["forward_arg_names"] = [f"batch=open('{fired}','w')", "mode"]
    return graph


def _guard(graph: Any, fired: Path) -> Any:
    graph["guards_code"] = [f"open('{fired}','w')"]
    return graph


def _key_of_a_dict(graph: Any, fired: Path) -> Any:
    key = f'w", open("{fired}","w"), "'
    spec = json.loads(call_of(graph)["in_spec"])
    spec[1]["children_spec"][0]["children_spec"][0]["context"] = json.dumps(["x", key])
    call_of(graph)["in_spec"] = json.dumps(spec)
    return graph


def _enumeration(graph: Any, fired: Path) -> Any:
    context = json.dumps([{"__enum__": True, "fqn": "planted:X", "name": "x"}])
    return _container(graph, "builtins.dict", context)


def _default_factory(graph: Any, fired: Path) -> Any:
    names = {"default_factory_module": "planted", "default_factory_name": "x"}
    return _container(graph, "collections.defaultdict", {**names, "dict_context": ["a"]})


def _container(graph: Any, kind: str, context: Any) -> Any:
    spec = json.loads(call_of(graph)["out_spec"])
    spec[1] = {"type": kind, "context": context, "children_spec": [spec[1]]}
    call_of(graph)["out_spec"] = json.dumps(spec)
    return graph


def _function_as_value(graph: Any, fired: Path) -> Any:
    inputs = [argument({"as_operator": "torch.os.system"}), argument({"as_string": "true"})]
    node_of(graph, target="torch.ops.higher_order.wrap", inputs=inputs)
    return graph


def _function_as_target(graph: Any, fired: Path) -> Any:
    node_of(graph, target="_operator.methodcaller", inputs=[argument({"as_string": "save"})])
    return graph


def _custom_object(graph: Any, fired: Path) -> Any:
    held = {"name": "obj", "class_fqn": "__torch__.torch.classes.quantized.LinearPackedParamsBase"}
    graph["graph_module"]["graph"]["custom_obj_values"] = {"obj": held}
    return graph


def _unknown_key(graph: Any, fired: Path) -> Any:
    graph["graph_module"]["hook"] = "anything"
    return graph


def _endless_size(graph: Any, fired: Path) -> Any:
    values = graph["graph_module"]["graph"]["tensor_values"]["batch_x"]
    values["sizes"][0]["as_expr"]["expr_str"] = "9**9**9**9"
    return graph


def _endless_counter(graph: Any, fired: Path) -> Any:
    graph["range_constraints"]["u9999999999999"] = {"min_val": 0, "max_val": 1}
    return graph


def _deep(graph: Any, fired: Path) -> Any:
    held: Any = {"as_none": True}
    for _ in range(400):
        held = {"as_string_to_argument": {"a": held}}
    node_of(graph, target="torch.ops.higher_order.wrap", inputs=[argument(held)])
    return graph


EDITS: list[Callable[[Any, Path], Any]] = [
    *(_string_constant, _string_as_number, _placeholder, _parameter, _keyword, _forward_argument),
    *(_guard, _key_of_a_dict, _enumeration, _default_factory, _function_as_value),
    *(_function_as_target, _custom_object, _unknown_key, _endless_size, _endless_counter, _deep),
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__.strip("_"))
def test_what_could_become_code_is_refused(
    edit: Callable[[Any, Path], Any],
    records: dict[str, bytes],
    fired: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "planted.py").write_text(f"open({str(fired)!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    graph = edit(json.loads(records[MODEL]), fired)
    path = write(tmp_path / "model.pt2", with_graph(records, graph))
    with pytest.raises(ValidationFailedError, match=r"models/model\.json") as refused:
        run(path)
    assert refused.value.kind == "unsafe"
    assert not fired.exists()


def hostile(fired: Path) -> list[str]:
    """Return texts that write the file where torch prints, evaluates or imports them."""
    write_file = f"open('{fired}','w')"
    enumeration = [{"__enum__": True, "fqn": "planted:X", "name": "x"}]
    spec = {"type": "builtins.dict", "context": json.dumps(enumeration), "children_spec": []}
    return [
        write_file,
        f"x={write_file}",
        f"x={write_file}, y",
        f"x\n    {write_file}\n    x",
        f"x: {write_file}",
        f"""' and open("{fired}","w") or '""",
        f"""", open("{fired}","w"), \"""",
        f"""'], open("{fired}","w"), ['""",
        f"torch.os.system('touch {fired}')",
        "planted",
        "torch.os.system",
        json.dumps([1, spec]),
        "9**9**9**9",
        "__class__.__init__",
    ]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return where the texts of a JSON document are; the name of a key ends with None."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield (*at, key, None)
            yield from places(child, (*at, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from places(child, (*at, index))
    elif isinstance(value, str):
        yield at


def put(document: str, place: tuple[Any, ...], change: Callable[[str], str]) -> Any:
    """Return a copy of a document with one text changed."""
    graph = held = json.loads(document)
    *steps, last = place[:-1] if place[-1] is None else place
    for step in steps:
        held = held[step]
    if place[-1] is None:
        held[change(last)] = held.pop(last)
    else:
        held[last] = change(held[last])
    return graph


class Attack:
    """Edits one text of a description at a time and looks whether it runs."""

    def __init__(self, records: dict[str, bytes], folder: Path) -> None:
        self.records, self.folder, self.fired = records, folder, folder / "fired"
        self.document = records[MODEL].decode()
        self.plain = json.loads(self.document)
        self.places = sorted(places(self.plain), key=repr)
        check_program(self.plain)

    def try_out(self, place: tuple[Any, ...], change: Callable[[str], str]) -> None:
        """Check that an edited description is refused, means the same, or does no harm."""
        graph = put(self.document, place, change)
        try:
            check_program(graph)
        except ValueError:
            return
        if graph != self.plain:  # else it was in what is dropped
            records = with_graph(self.records, put(self.document, place, change))
            with contextlib.suppress(Exception):
                run(write(self.folder / "model.pt2", records))
        assert not self.fired.exists(), (place, change(""))


def test_no_text_of_an_archive_becomes_code(
    records: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = Attack(records, tmp_path)
    (tmp_path / "planted.py").write_text(f"open({str(attack.fired)!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    fields: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for place in attack.places:
        steps = ["", *(step for step in place if not isinstance(step, int))]
        # One of the nodes stands for all of them, and one name for all of a mapping.
        fields[(steps[-3], None) if steps[-1] is None else tuple(steps[-2:])] = place
    assert len(fields) > 50
    for number, place in enumerate(fields.values()):
        for text_number, text in enumerate(hostile(attack.fired)):
            # Every field and every text is put both in place of what is there and behind it.
            kept = (number + text_number) % 2
            attack.try_out(place, lambda old, text=text, kept=kept: old * kept + text)  # type: ignore[misc]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_random_text_of_an_archive_becomes_code(
    data: st.DataObject, records: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    attack = Attack(records, tmp_path_factory.mktemp("random"))
    place = data.draw(st.sampled_from(attack.places))
    marks = st.sampled_from([*hostile(attack.fired), "'", '"', "\\", "\n", "#", "(", "__", "x"])
    text = "".join(data.draw(st.lists(marks | st.text(max_size=3), max_size=4)))
    kept = data.draw(st.booleans())
    attack.try_out(place, lambda old: old + text if kept else text)


def parts(kind: Any) -> set[Any]:
    """The classes of a type of torch's schema, such as those of ``dict[str, list[Node]]``."""
    inner = typing.get_args(kind)
    return set().union(*map(parts, inner)) if inner else {kind}


def test_every_text_of_torchs_schema_has_a_rule() -> None:
    """Every field that holds texts or is a mapping by text, except for what is dropped."""
    kinds, texts = {schema.ExportedProgram, schema.PayloadConfig}, set()
    pending = list(kinds)
    while pending:
        kind = pending.pop()
        for name, field in _fields(kind).items():
            if (place := f"{kind.__name__}.{name}") in _DROPPED:
                continue
            if str in parts(field):
                texts.add(place)
            found = {part for part in parts(field) if dataclasses.is_dataclass(part)} - kinds
            kinds |= found
            pending += found
    assert set(RULES) == texts


def test_sizes_are_bounded_arithmetic() -> None:
    right = [
        *("s0", "2*s40 + 1", "Symbol('s11', positive=True, integer=True)", "Max(1, u0)"),
        "Add(Mul(Integer(2), Symbol('s0', integer=True)), Integer(-1))",
        "FloorDiv(Symbol('s7', integer=True), Integer(2))",
        "Pow(Symbol('s7', integer=True), Rational(1, 2))",
        "Mul(Float('0.5', precision=53), ToFloat(Symbol('s7')))",
        "StrictLessThan(Symbol('s0'), Integer(3))",
        "Add(" + ", ".join(f"Mul(Integer({n}), Symbol('s{n}'))" for n in range(1, 150)) + ")",
        "(" * 20 + "s0" + " - 1)//2 + 1)" * 10,
    ]
    for text in right:
        check_size(text)
    wrong = [
        *("9**9**9**9", "s0**999", "2**s0", "Pow(2, 10**9)", "1e9999", "9" * 400, "100!", "s0[0]"),
        *("PowByNatural(9, s0)", "Float('1e99999999')", "Float('1', precision=99999999)"),
        *("Symbol('s0', __class__=True)", "Symbol('x;y')", "lambda: s0", "s0.__class__", "open"),
        *("Symbol", "Integer('9')", "(((9**64)**64)**64)**64", "s0" + "+s0" * 9999, "(" * 500),
        "Max(" + ", ".join(f"s{n}" for n in range(300)) + ")",
        *("LShift(1, 99999999)", "1 << 99999999", "'a'", "s9999999", "f(s0)", "__import__('os')"),
    ]
    for text in wrong:
        with pytest.raises(ValueError):  # noqa: PT011
            check_size(text)


def test_guards_compare_sizes_of_inputs() -> None:
    right = [
        "L['batch']['w'].size()[0] == L['batch']['x'].size()[0]",
        "(L['args'][0].size()[1] // 2) <= L['x'].stride()[0] and L['n'] != -3",
        "math.floor(L['x'].size()[0] / 2) > 1.5",
    ]
    for text in right:
        check_guard(text)
    wrong = [
        *("L['x'].size", "L['x'].__class__", "L.size()[0]", "L['x'].size(0)", "L['x']()", "x", "L"),
        *("L['x'] == open('f')", "L['x'], 1", "L['x'] == 1 #", "L['x'] == 1\n", 'L["x"] == 1'),
        *("math.exit()", "torch.os.system(1)", "[L['x'] for L in 1]", "L['x' 'y'] == 9**9**9"),
        *("L['a\\'b'] == 1", "max(L['x'].size(), key=open)", "L[L['x']] == 1", "L['x'][-1:] == 1"),
    ]
    for text in wrong:
        with pytest.raises(ValueError):  # noqa: PT011
            check_guard(text)


def test_operators_that_do_more_than_compute() -> None:
    wrong = [
        *("torch.ops.aten.from_file.default", "torch.ops.aten.set_.source_Storage"),
        *("torch.ops.aten._index_put_impl_.default", "torch.ops.aten._print.default"),
        *("torch.ops.aten.resize_.default", "torch.ops.aten.save.default", "torch.load"),
        *("torch.ops.prim.rpc_async.default", "torch.ops.higher_order.triton_kernel_wrapper"),
        *("_operator.call", "_operator.attrgetter", "math.factorial", "torch.os.system", "#x:y"),
    ]
    assert [target for target in wrong if is_arithmetic(target)] == []
    assert is_arithmetic("torch.ops.aten.add.Tensor")
    assert is_arithmetic("_operator.mul")


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_entries_that_hold_more_than_tensors(
    records: dict[str, bytes], fired: Path, tmp_path: Path
) -> None:
    trap = pickled((Touch(fired), {}))
    used = json.loads(records[WEIGHTS])
    used["config"]["layers.0.weight"]["use_pickle"] = True
    elsewhere = json.loads(records[WEIGHTS])
    elsewhere["config"]["layers.0.weight"]["path_name"] = "../sample_inputs/model.pt"
    example = {"x": torch.ones(4, 3), f'w", open("{fired}","w"), "': torch.ones(4)}
    wrong: list[dict[str, bytes]] = [
        {INPUTS: trap},
        {INPUTS: pickled(((example, "same"), {}))},
        {INPUTS: pickled(({"x": "' + open('f') + '"}, {}))},
        {"data/weights/model.pt": trap},
        {"data/constants/model.pt": trap},
        {"data/constants/custom_obj_0": trap},
        {"data/constants/opaque_obj_0": trap},
        {"data/aotinductor/model/model.so": b"\x7fELF"},
        {"models/other.json": records[MODEL]},
        {"models/../model.json": records[MODEL]},
        {"DATA/weights/weight_0": b""},
        {"data/weights/WEIGHT_0": b""},
        {WEIGHTS: json.dumps(used).encode()},
        {WEIGHTS: json.dumps(elsewhere).encode()},
        {"hook.py": b"raise SystemExit"},
    ]
    for number, changes in enumerate(wrong):
        path = write(tmp_path / f"{number}.pt2", {**records, **changes})
        with pytest.raises(ValidationFailedError, match="was not loaded") as refused:
            run(path)
        assert refused.value.kind == "unsafe", changes
    assert not fired.exists()


def test_an_archive_that_unpacks_to_more_than_it_is(
    records: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in records.items():
            bomb.writestr(f"model/{name}", content)
        bomb.writestr("model/extra/zeros", bytes(50_000_000))
    with pytest.raises(ValidationFailedError, match="more than its own size"):
        load_program(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"graph_module": 1e999}',
        b"\xff\xfe",
        b"9" * 9999,
    ],
    ids=lambda content: repr(content[:12]),
)
def test_descriptions_that_are_none(
    content: bytes, records: dict[str, bytes], tmp_path: Path
) -> None:
    for name in (MODEL, WEIGHTS):
        with pytest.raises(ValidationFailedError, match="pt2"):
            load_program(write(tmp_path / "model.pt2", {**records, name: content}))


def test_archives_of_another_format(records: dict[str, bytes], tmp_path: Path) -> None:
    for change in ({"archive_version": b"99"}, {"archive_format": b"zip"}):
        with pytest.raises(ValidationFailedError, match="cannot be read as a torch"):
            load_program(write(tmp_path / "model.pt2", {**records, **change}))


def test_archives_of_older_releases(
    program: torch.export.ExportedProgram, records: dict[str, bytes], tmp_path: Path
) -> None:
    old = {name: held for name, held in records.items() if "_config" not in name}
    old["data/weights/model.pt"] = pickled(dict(program.state_dict))
    old["data/constants/model.pt"] = pickled(dict(program.constants))
    path = write(tmp_path / "model.pt2", old)
    assert "data/weights/model.pt" in entries(path)
    arguments, keywords = program.example_inputs or ((), {})
    answer = load_program(path).module()(*arguments, **keywords)
    assert torch.equal(answer["y"], program.module()(*arguments, **keywords)["y"])


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_a_guard_that_cannot_be_computed_refuses_the_input(tmp_path: Path) -> None:
    held = save(torch.export.export(Double(), (torch.ones(2, 3),)), tmp_path / "model.pt2")
    graph = json.loads(held[MODEL])
    graph["guards_code"] = ["1 // (L['x'].size()[0] - 2) == 0"]
    program = load_program(write(tmp_path / "model.pt2", with_graph(held, graph)))
    model = MLModel(tmp_path, {}, (), (), None, None)
    source = ExportedProgramSource(model, program)
    (name,) = (tensor.name for tensor in source.interface.inputs)
    with pytest.raises(InputRejectedError, match="zero"):
        source.run({name: np.ones((2, 3), np.float32)})

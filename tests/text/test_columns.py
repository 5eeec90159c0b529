"""Files of text and named columns: what is read, where every error says it is, and data sets of the Hub.

The library `datasets` is not needed: a small stand-in gives what it gives, and records what it is asked for.
"""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.text.columns import (
    decode_lines,
    has_columns,
    lines_of,
    read_columns,
    read_lines,
    read_records,
    read_text,
    text_of,
)

BOM = b"\xef\xbb\xbf"


def write(path, *lines):
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return path


# --- Whole files and lines --------------------------------------------------------------------------------------------


def test_a_text_is_read_as_it_is(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(BOM + "a\r\n b\u2028\ufeffc\n\n".encode())
    assert read_text(path) == read_text(str(path)) == "a\r\n b\u2028\ufeffc\n\n"


def test_lines_end_at_newlines_only(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(BOM + "a\u2028\x0b\x0c\x85b\rc\r\n\r\n d \r\r\nlast".encode())
    expected = ["a\u2028\x0b\x0c\x85b\rc", "", " d \r", "last"]
    assert read_lines(path) == read_lines(str(path)) == expected
    assert lines_of("") == []
    assert lines_of("\n") == [""]
    assert lines_of("a\n\n") == ["a", ""]


@given(
    st.lists(st.text(st.sampled_from("ab \t\x0b\u2028\x85é"), max_size=5), min_size=1), st.sampled_from(["\n", "\r\n"])
)
def test_written_lines_come_back(lines, end):
    text = "".join(line + end for line in lines)
    assert lines_of(text) == lines
    assert decode_lines(BOM + text.encode(), "x") == lines


@pytest.mark.parametrize("read", [read_text, read_lines])
def test_files_that_cannot_be_read(tmp_path, read):
    path = tmp_path / "x.txt"
    with pytest.raises(
        InputError, match=r"x\.txt: there is no such file.*--data-root.*GLASSFORMER_DATA.*docs/data\.md"
    ):
        read(path)
    with pytest.raises(InputError, match=r": cannot be read: Is a directory\. Data files"):
        read(tmp_path)
    for empty in (b"", b" \n\t\n", BOM, BOM + b"\r\n"):
        path.write_bytes(empty)
        with pytest.raises(InputError, match=r"x\.txt: the file is empty; it must hold (text|one sentence a line)\."):
            read(path)
    with pytest.raises(InputError, match=r"must hold a poem\."):
        read_text(path, "a poem")
    path.write_bytes(BOM + b"good\n\nna\xefve\n\xff")
    with pytest.raises(InputError, match=r"x\.txt:3: the byte 0xef is not UTF-8 text; convert the file to UTF-8\.$"):
        read(path)
    with pytest.raises(InputError, match=r"^stdin:2: the byte 0x80 is not"):
        decode_lines(b"a\n\x80", "stdin")


# --- Columns ----------------------------------------------------------------------------------------------------------


def test_which_paths_have_columns(tmp_path):
    assert has_columns("a/b.tsv") and has_columns(tmp_path / "b.jsonl") and has_columns("hub:squad")
    assert not any(map(has_columns, ("a.txt", "a.json", "tsv", "x.tsv.gz", "my.hub:x", tmp_path)))


def test_tsv_by_name_and_by_number(tmp_path):
    path = write(tmp_path / "c.tsv", "id\ttext\tlabel", '1\ta "quoted\tx', "2\t b \ty\tmore", "3\t\t")
    assert read_columns(path, ["text"]) == [['a "quoted', " b ", ""]]
    assert read_columns(str(path), ["label", "id", "label"]) == [["x", "y", ""], ["1", "2", "3"], ["x", "y", ""]]
    assert read_columns(path, [3, 1]) == [["label", "x", "y", ""], ["id", "1", "2", "3"]]
    assert read_columns(path, ["1"]) == [["id", "1", "2", "3"]]
    assert read_columns(write(tmp_path / "n.tsv", "1\tname", "a\tb"), ["name", "1"]) == [
        ["b"],
        ["a"],
    ]  # names, not both


def test_json_lines(tmp_path):
    path = write(tmp_path / "c.jsonl", '{"a": "x\\u2028y", "b": "1"}', json.dumps({"b": "ü", "a": "", "c": [1]}))
    assert read_columns(path, ["a"]) == [["x\u2028y", ""]]
    assert read_columns(path, ["b", "a"]) == [["1", "ü"], ["x\u2028y", ""]]


def test_numbers_are_text_only_when_asked(tmp_path):
    values = [1, -0.5, True, False, "as it is", 10**30]
    path = write(tmp_path / "c.jsonl", *(json.dumps({"a": value}) for value in values))
    with pytest.raises(InputError, match=r"c\.jsonl:1: 'a' must be text, got 1\.$"):
        read_columns(path, ["a"])
    assert read_columns(path, ["a"], as_text=True) == [["1", "-0.5", "true", "false", "as it is", "1" + "0" * 30]]
    for value in (None, [1], {"b": 1}):
        write(path, '{"a": "fine"}', json.dumps({"a": value}))
        with pytest.raises(InputError, match=r"c\.jsonl:2: 'a' must be text, got (null|\[1\]|\{\"b\": 1\})\.$"):
            read_columns(path, ["a"], as_text=True)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=1, max_size=8))
def test_what_is_written_as_json_lines_is_read(tmp_path, rows):
    path = write(tmp_path / "c.jsonl", *(json.dumps({"a": a, "b": b}) for a, b in rows))
    assert read_columns(path, ["b", "a"]) == [[b for _, b in rows], [a for a, _ in rows]]
    assert read_records(path) == [(f"{path}:{n}", {"a": a, "b": b}) for n, (a, b) in enumerate(rows, 1)]


@pytest.mark.parametrize(
    ("name", "lines", "fields", "message"),
    [
        ("c.jsonl", ['{"a": "x"}', '{"a": '], ["a"], r"c\.jsonl:2: not a JSON object \(.*one object a line"),
        ("c.jsonl", ['{"a": "x"}', ""], ["a"], r"c\.jsonl:2: not a JSON object"),
        ("c.jsonl", ["[" * 100_000], ["a"], r"c\.jsonl:1: not a JSON object \(.*recursion"),
        ("c.jsonl", ['{"a": ' + "1" * 5000 + "}"], ["a"], r"c\.jsonl:1: not a JSON object \(.*digits"),
        (
            "c.jsonl",
            ['{"a": "x"}', '"a"'],
            ["a"],
            r"c\.jsonl:2: must be a JSON object with the keys \['a'\], got \"a\"\.",
        ),
        (
            "c.jsonl",
            ['{"text": "x"}'],
            ["txt"],
            r":1: there is no key 'txt', only 'text'\. Did you mean 'text'\? Name k",
        ),
        ("c.jsonl", ["{}"], ["a"], r":1: there is no key 'a', only an empty object\. Name keys with 'fields'\."),
        ("c.jsonl", ['{"a": "\\udc00"}'], ["a"], r"c\.jsonl:1: 'a' holds half a surrogate pair"),
        ("c.tsv", ["a\tb", "1\t2", "3"], ["b"], r"c\.tsv:3: expected b, but this line has 1 column\(s\) between tabs"),
        ("c.tsv", ["a\tb", "1\t2", ""], ["b", "a"], r"c\.tsv:3: expected b and a, but this line has 1 column"),
        ("c.tsv", ["a\tb", "1"], [1, 2], r"c\.tsv:2: expected column 1 and column 2, but this line has 1 column"),
        (
            "c.tsv",
            ["text\tb", "1\t2"],
            ["txt"],
            r"c\.tsv:1: there is no column 'txt', only 'text', 'b'\. Did you mean 'te",
        ),
        ("c.tsv", ["a\tb"], ["c"], r"c\.tsv:1: there is no column 'c'.*'fields', or give their numbers \(from 1\)"),
        ("c.tsv", ["a\tb"], ["a"], r"c\.tsv: there is nothing below the line of column names"),
        ("c.tsv", ["a\tb"], [0], r"columns are counted from 1, got \[0\]"),
        ("c.tsv", ["a\tb"], [2, "-1"], r"columns are counted from 1, got \[2, -1\]"),
        ("c.tsv", ["a\tb"], ["1" * 5000], r"c\.tsv:1: there is no column '111"),
        ("c.tsv", ["a\tb"], [], r"'fields' must name at least one column of .*c\.tsv"),
        ("c.txt", ["a\tb"], ["a"], r"c\.txt has no named columns: give a \.tsv or \.jsonl file, or hub:NAME"),
    ],
)
def test_broken_files_say_where(tmp_path, name, lines, fields, message):
    path = write(tmp_path / name, *lines)
    with pytest.raises(InputError, match=message) as caught:
        read_columns(path, fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["c.tsv", "c.jsonl"])
@pytest.mark.parametrize("content", [b"", b"\n", BOM])
def test_empty_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for fields in (["a"], [1]):
        with pytest.raises(InputError, match=rf"{name}: the file is empty"):
            read_columns(tmp_path / name, fields)


def test_records_keep_all_values(tmp_path):
    path = write(tmp_path / "c.jsonl", '{"a": [1, null]}', "{}")
    assert read_records(str(path)) == [(f"{path}:1", {"a": [1, None]}), (f"{path}:2", {})]
    write(path, "{}", "3")
    with pytest.raises(InputError, match=r"c\.jsonl:2: must be a JSON object, got 3\.$"):
        read_records(path)


def test_the_text_of_a_record():
    record = {"a": "x", "number": 2}
    assert text_of(record, "a", "here") == "x"
    assert text_of(record, "number", "here", as_text=True) == "2"
    with pytest.raises(
        InputError, match=r"^here: there is no key 'numbr', only 'a', 'number'\. Did you mean 'number'\?$"
    ):
        text_of(record, "numbr", "here")
    with pytest.raises(InputError, match=r"^here: there is no key 'b', only 'a', 'number'\. Do this\.$"):
        text_of(record, "b", "here", "Do this.")


# --- The Hub ----------------------------------------------------------------------------------------------------------


class Rows:
    """One split: rows as the library `datasets` gives them."""

    def __init__(self, columns, labels=()):
        self.columns, self.column_names = columns, list(columns)
        self.features = {name: SimpleNamespace(names=list(labels)) if name == "label" else object() for name in columns}

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name):
        return list(self.columns[name])

    def __iter__(self):
        for row in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, row, strict=True))


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for `datasets`: `hub.sets[name][config][split]` holds rows, `hub.loaded` what was asked for."""
    module = ModuleType("datasets")
    module.sets, module.loaded = {}, []

    def configs(name):
        if name not in module.sets:
            raise ConnectionError(f"Couldn't reach '{name}'\n  on the Hub")
        return list(module.sets[name])

    def splits(name, config=None):
        known = configs(name)
        if config is None and len(known) > 1:
            raise ValueError(f"Config name is missing. Please pick one among {known}")
        return list(module.sets[name][known[0] if config is None else config])

    def load(name, config=None, split=None):
        module.loaded.append((name, config, split))
        found = module.sets[name][configs(name)[0] if config is None else config]
        base = split.split("[")[0]
        if base not in found:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(found)}.')
        return found[base]

    module.get_dataset_config_names, module.get_dataset_split_names, module.load_dataset = configs, splits, load
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


ONE = Rows({"text": ["a", "b"], "label": [1, -1]}, labels=["neg", "pos"])


def test_a_data_set_of_the_hub(hub):
    hub.sets["me/set"] = {"default": {"train": ONE}}
    assert read_columns("hub:me/set", ["text"]) == [["a", "b"]]
    assert hub.loaded == [("me/set", None, "train")]
    assert read_records("hub:me/set") == [
        ("hub:me/set: row 1", {"text": "a", "label": 1}),
        ("hub:me/set: row 2", {"text": "b", "label": -1}),
    ]


def test_class_labels_are_given_by_their_names(hub):
    hub.sets["me/set"] = {"default": {"train": ONE, "test": Rows({"label": [0, 1, 2]}, labels=["neg", "pos"])}}
    assert read_columns("hub:me/set:train", ["label", "text"], as_text=True) == [["pos", "-1"], ["a", "b"]]
    with pytest.raises(InputError, match=r"^hub:me/set:train: row 2: 'label' must be text, got -1\.$"):
        read_columns("hub:me/set:train", ["label"])
    assert read_columns("hub:me/set:test", ["label"], as_text=True) == [["neg", "pos", "2"]]


def test_configurations_and_splits(hub):
    train, test = Rows({"text": ["train"]}), Rows({"text": ["test"]})
    hub.sets["glue"] = {"sst2": {"train": train, "test": test}, "ax": {"test": test}}
    hub.sets["plain"] = {"default": {"train": train, "test": test}}
    for path, asked in {
        "hub:glue:sst2:test": ("glue", "sst2", "test"),
        "hub:glue:ax": ("glue", "ax", "test"),
        "hub:plain:test": ("plain", None, "test"),
        "hub:plain::test": ("plain", None, "test"),
        "hub:plain:default:train": ("plain", "default", "train"),
        "hub:plain:train[:90%]": ("plain", None, "train[:90%]"),
        "hub:glue:sst2:train[:10%]+train[90%:]": ("glue", "sst2", "train[:10%]+train[90%:]"),
    }.items():
        hub.loaded.clear()
        assert read_columns(path, ["text"]) == [["test" if "test" in asked[2] else "train"]]
        assert hub.loaded == [asked]


def test_paths_of_the_hub_that_cannot_be_read(hub):
    hub.sets["plain"] = {"default": {"train": ONE, "test": ONE}}
    hub.sets["glue"] = {"sst2": {"train": ONE}, "ax": {"test": ONE}}
    hub.sets["none"] = {"default": {"train": Rows({"text": []})}}
    for path, message in {
        "hub:plain": r"'hub:plain' must name one of the splits train, test: hub:plain:train$",
        "hub:plain:default": r"must name one of the splits train, test: hub:plain:default:train$",
        "hub:plain:tset": r'^\'hub:plain:tset\' cannot be read: Unknown split "tset"\. Should be',
        "hub:glue": r"cannot be read: Config name is missing\. Please pick one among \['sst2', 'ax'\]\. Check the name",
        "hub:nowhere": r"cannot be read: Couldn't reach 'nowhere' on the Hub\. Check the name and the network\.$",
        "hub:none": r"^hub:none: the data set is empty\.$",
        "hub:": r"must be written hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIG:SPLIT",
        "hub::train": "must be written hub:NAME",
        "hub:a:b:c:d": "must be written hub:NAME",
    }.items():
        for read in (lambda path: read_columns(path, ["text"]), read_records):
            with pytest.raises(InputError, match=message) as caught:
                read(path)
            assert "\n" not in str(caught.value)


def test_an_error_without_words_is_named_by_its_kind(hub):
    def load(*_, **__):
        raise TimeoutError

    hub.sets["plain"] = {"default": {"train": ONE}}
    hub.load_dataset = load
    with pytest.raises(InputError, match=r"cannot be read: TimeoutError\. Check"):
        read_columns("hub:plain", ["text"])


def test_columns_of_the_hub_that_are_not_there_or_no_text(hub):
    hub.sets["plain"] = {"default": {"train": Rows({"text": ["a", None, "\ud800"], "n": [1, 2.5, True]})}}
    with pytest.raises(
        InputError, match=r"^hub:plain: there is no column 'txt', only 'text', 'n'\. Did you mean 'text'\?"
    ):
        read_columns("hub:plain", ["n", "txt"])
    with pytest.raises(InputError, match=r"^hub:plain: row 2: 'text' must be text, got null\.$"):
        read_columns("hub:plain", ["text"])
    with pytest.raises(InputError, match=r"^hub:plain: row 1: 'n' must be text, got 1\.$"):
        read_columns("hub:plain", ["n"])
    assert read_columns("hub:plain", ["n"], as_text=True) == [["1", "2.5", "true"]]


@pytest.mark.parametrize("read", [lambda path: read_columns(path, ["text"]), read_records])
def test_without_the_library_the_extra_is_named(monkeypatch, read):
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = (
        r"^'hub:squad' is read with the library datasets, which is missing: pip install 'glassformer\[datasets\]'\.$"
    )
    with pytest.raises(InputError, match=message):
        read("hub:squad")

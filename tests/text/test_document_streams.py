"""Documents one by one are those that `read_documents` reads at once, and none but one is held."""

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.text.document_streams import stream_documents
from glassformer.text.documents import read_documents


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets", reason="needs the extra 'datasets'")


LINES = st.lists(st.sampled_from(["", "  ", "a b", "= T =", "= = S = =", "c\td", "é", "x\r"]), min_size=1, max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, st.sampled_from(["file", "line", "blank-line", "heading"]), st.booleans(), st.booleans())
def test_plain_text_is_cut_alike(tmp_path, lines, split, ended, marked):
    path = tmp_path / "text.txt"
    path.write_bytes((b"\xef\xbb\xbf" if marked else b"") + ("\n".join(lines) + ("\n" if ended else "")).encode())
    try:
        wanted = read_documents(path, split)
    except InputError:
        with pytest.raises(InputError):
            list(stream_documents(path, split))
    else:
        assert list(stream_documents(path, split)) == wanted


def test_columns_are_read_alike(tmp_path):
    rows = [{"text": "one\ntwo", "n": 1}, {"text": " "}, {"text": "three"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.tsv").write_text("id\ttext\n1\tone\n2\ttwo words\n")
    for name, field in (("a.jsonl", "text"), ("a.tsv", "text"), ("a.tsv", "2")):
        assert list(stream_documents(tmp_path / name, field=field)) == read_documents(tmp_path / name, field=field)


@pytest.mark.parametrize(
    ("name", "content", "field", "message"),
    [
        ("a.txt", b"fine\nb\xffd\n", "text", r"a\.txt:2: the byte 0xff is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\nno\n', "text", r"a\.jsonl:2: not a JSON object"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', "text", r"a\.jsonl:2: must be a JSON object with the key 'text'"),
        ("a.jsonl", b'{"text": 3}\n', "text", r"a\.jsonl:1: 'text' must be text"),
        ("a.jsonl", b'{"txt": "a"}\n', "text", r"a\.jsonl:1: there is no key 'text'.*'txt'.*--column"),
        ("a.tsv", b"id\ttxt\n", "text", r"a\.tsv:1: there is no column 'text'.*'txt'"),
        ("a.tsv", b"id\ttext\n1\n", "text", r"a\.tsv:2: expected column 'text'"),
        ("a.txt", b" \n\n", "text", r"a\.txt: there is no document in it"),
        ("a.tsv", b"a\n", "0", "counted from 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, name, content, field, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(stream_documents(tmp_path / name, "line" if name.endswith("txt") else "file", field))


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        list(stream_documents(tmp_path / "none.txt", "line"))
    with pytest.raises(InputError, match="cannot be read"):
        list(stream_documents(tmp_path, "line"))
    with pytest.raises(InputError, match="Did you mean 'blank-line'"):
        list(stream_documents(tmp_path / "none.txt", "blank-lines"))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_data_set_is_streamed(tmp_path, kind, monkeypatch, datasets):
    """A local folder of one, through the same calls of the library as one of the Hub."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    texts = [f"text {number}" for number in range(50)]
    folder = tmp_path / "set"
    folder.mkdir()
    for split, part in (("train", texts[:40]), ("test", texts[40:])):
        data = datasets.Dataset.from_dict({"text": part, "n": list(range(len(part)))})
        data.to_json(folder / f"{split}.jsonl") if kind == "jsonl" else data.to_parquet(folder / f"{split}.parquet")
    monkeypatch.setattr(datasets, "load_dataset", asked(datasets.load_dataset, seen := []))
    assert list(stream_documents(f"hub:{folder}:train")) == texts[:40]
    assert list(stream_documents(f"hub:{folder}:test")) == texts[40:]
    assert all(how["streaming"] for how in seen) and len(seen) == 2
    with pytest.raises(InputError, match="row 1: there is no key 'body', only 'text', 'n'"):
        list(stream_documents(f"hub:{folder}:train", field="body"))
    with pytest.raises(InputError, match=r"must name one of the splits train, test|must name one of the splits"):
        list(stream_documents(f"hub:{folder}"))
    with pytest.raises(InputError, match="'hub:.*nothing' cannot be read"):
        list(stream_documents(f"hub:{tmp_path / 'nothing'}"))


def asked(load, seen):
    """`load`, noting how it is asked."""

    def noted(*names, **how):
        seen.append(how)
        return load(*names, **how)

    return noted


def test_a_fault_on_the_way_is_one_sentence(monkeypatch, datasets):
    """As where the network goes away after some rows."""

    def broken():
        yield {"text": "a"}
        raise OSError("connection\nlost")

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, config=None: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **how: broken())
    rows = stream_documents("hub:me/set")
    assert next(rows) == "a"
    with pytest.raises(InputError, match="'hub:me/set' cannot be read: connection lost"):
        next(rows)


@pytest.mark.parametrize("split", ["line", "blank-line", "heading"])
def test_a_long_file_is_not_held(tmp_path, split):
    path = tmp_path / "long.txt"
    path.write_text("= Title =\nsome words of text\n\n" * 20_000)  # 0.6 MB
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream_documents(path, split)) >= 20_000
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()

"""Everything that can be captioned: what it is called, what is opened, what else is known of it."""

import io
import json
import tarfile

import datasets
import fsspec
import pyarrow
import pyarrow.parquet
import pytest

import bulk_jobs
import nasty_files
import nasty_videos
from limner.bulk import files, inputs, rows, shards
from limner.bulk.media import ROW
from limner.data.batches import read_ahead
from limner.errors import Reject, UserError
from limner.types import Sample


def outcome(source, **options):
    """{id: what is said of it, its row, or why it is rejected}."""
    items = list(read_ahead(source, range(len(source)), workers=2, ahead=4, **options))
    assert [item.id for item in items] == list(source.ids())
    return {
        item.id: (bulk_jobs.said(item.result.image), dict(item.result.extra.get(ROW, {})))
        if isinstance(item.result, Sample)
        else item.result.reason
        for item in items
    }


def said(number):
    return bulk_jobs.said(bulk_jobs.image(number))


@pytest.fixture
def photos(tmp_path):
    bulk_jobs.photos(tmp_path / "photos", 5, broken=[4])
    return tmp_path / "photos"


def test_rows_of_jsonl(photos, tmp_path):
    lines = [
        '{"image": "photos/00000.png", "place": "Oslo"}',
        "",
        '{"id": 7, "image": "photos/00001.png", "place": "Rome", "n": 2}',
        "no JSON",
        '{"id": 7, "image": "photos/00002.png"}',
        '{"id": "gone", "image": "photos/none.png"}',
        '{"id": "far", "image": "http://localhost/a.png"}',
        '{"place": "nowhere"}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    found = outcome(inputs.source(str(tmp_path / "rows.jsonl")))
    assert found["photos/00000.png"] == (said(0), {"place": "Oslo", "image": "photos/00000.png"})
    assert found["7"] == (said(1), {"id": 7, "place": "Rome", "n": 2, "image": "photos/00001.png"})
    assert found["rows.jsonl:3"].startswith("line 4: no valid JSON")
    assert found["rows.jsonl:4"] == "the id '7' is that of row 2"
    assert "no such file" in found["gone"].lower()
    assert "is an address" in found["far"]
    assert found["rows.jsonl:7"] == "no image in the column 'image'"
    assert len(found) == 7


def test_rows_of_csv_with_line_breaks_in_quotes(photos, tmp_path):
    text = '\ufefffile_name,about\r\nphotos/00000.png,"one, ""two""\r\nthree"\r\n\r\n'
    text += "photos/00003.png,last\r\nx\r\n"
    (tmp_path / "rows.csv").write_bytes(text.encode())
    found = outcome(inputs.source(str(tmp_path / "rows.csv")))
    assert found["photos/00000.png"] == (
        said(0),
        {"about": 'one, "two"\r\nthree', "file_name": "photos/00000.png"},
    )
    assert found["photos/00003.png"][1]["about"] == "last"
    assert found["rows.csv:3"] == "line 6: 1 columns where there should be 2"


def test_rows_of_parquet_hold_images_as_datasets_writes_them(tmp_path):
    struct = [{"bytes": bulk_jobs.content(n), "path": f"{n}.png"} for n in range(5)]
    table = pyarrow.table({"image": struct, "place": list("abcde"), "raw": [b"x"] * 5})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    found = outcome(inputs.source(str(tmp_path / "a.parquet")))
    assert found == {f"a.parquet:{n + 1}": (said(n), {"place": "abcde"[n]}) for n in range(5)}

    plain = pyarrow.table({"pixels": [bulk_jobs.content(n) for n in range(3)], "id": ["x", "y", "z"]})
    pyarrow.parquet.write_table(plain, tmp_path / "b.parquet")
    found = outcome(inputs.source(str(tmp_path / "b.parquet"), image="pixels"))
    assert found == {id: (said(n), {"id": id}) for n, id in enumerate("xyz")}
    with pytest.raises(UserError, match=r"which column has the image\? --image NAME; it has pixels, id"):
        inputs.source(str(tmp_path / "b.parquet")).ids()


def test_a_data_set_on_disk(tmp_path):
    pictures = [bulk_jobs.image(n) for n in range(3)]
    data = datasets.Dataset.from_dict({"image": pictures, "place": list("abc")}).cast_column(
        "image", datasets.Image()
    )
    data.save_to_disk(str(tmp_path / "set"))
    source = inputs.source(str(tmp_path / "set"))
    assert isinstance(source, rows.Source)
    assert outcome(source) == {f"set:{n + 1}": (said(n), {"place": "abc"[n]}) for n in range(3)}


def shard(path, samples, *, cut=0):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in samples:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) - cut])


def test_shards(tmp_path):
    one = [("a/0.png", bulk_jobs.content(0)), ("a/0.txt", b"old\n"), ("a/0.json", b'{"place": "Oslo"}')]
    two = [("a/1.seg.png", bulk_jobs.content(1)), ("a/2.txt", b"no picture"), ("a/3.json", b"{")]
    shard(tmp_path / "cc" / "cc-000.tar", [*one, *two, ("a/3.png", b"x")])
    shard(tmp_path / "cc" / "cc-001.tar", [("0.PNG", bulk_jobs.content(4))])
    right = {
        "cc-000/a/0": (said(0), {"key": "a/0", "txt": "old", "place": "Oslo"}),
        "cc-000/a/1": (said(1), {"key": "a/1"}),
        "cc-000/a/2": "no image or video among its files: txt",
        "cc-001/0": (said(4), {"key": "0"}),
    }
    for path in ("cc", "cc/*.tar", "cc/cc-{000..001}.tar"):
        source = inputs.source(str(tmp_path / path))
        assert isinstance(source, shards.Source)
        found = outcome(source)
        assert found.pop("cc-000/a/3").startswith("its JSON cannot be read")
        assert found == right


def test_a_shard_whose_download_broke_off(tmp_path):
    samples = [(f"{n}.png", bulk_jobs.content(n) + bytes(5000)) for n in range(4)]
    shard(tmp_path / "cut.tar", samples, cut=9000)
    found = outcome(inputs.source(str(tmp_path / "cut.tar")))
    assert found["cut/0"] == (said(0), {"key": "0"})
    assert isinstance(found[list(found)[-1]], str) or len(found) < 4
    (tmp_path / "bad.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(UserError, match=r"bad\.tar: no tar file"):
        inputs.source(str(tmp_path / "bad.tar")).ids()


def test_patterns_folders_and_videos(photos, tmp_path):
    found = outcome(inputs.source(f"{photos}/0000[0-2].png"))
    assert found == {f"0000{n}.png": (said(n), {}) for n in range(3)}
    nasty_videos.video(photos / "clip.mp4", 12)
    source = inputs.source(str(photos))
    assert isinstance(source, files.Source)
    items = {item.id: item.result for item in read_ahead(source, range(len(source)), workers=1, ahead=2)}
    assert len(items["clip.mp4"].media) == 8
    assert isinstance(items["00004.png"], Reject)
    shard(tmp_path / "v.tar", [("0.mp4", (photos / "clip.mp4").read_bytes())])
    (item,) = read_ahead(inputs.source(str(tmp_path / "v.tar")), [0], workers=1, ahead=1)
    assert [image.tobytes() for image in item.result.media] == [
        image.tobytes() for image in items["clip.mp4"].media
    ]


def test_every_file_below_a_folder_is_named_once_whatever_leads_to_it(tmp_path):
    good = nasty_files.good(tmp_path / "good")
    broken = nasty_files.broken(tmp_path / "broken")  # with a link to its own folder
    everything = {f"good/{name}" for name in good} | {f"broken/{name}" for name in broken}
    for path in (tmp_path, f"{tmp_path}/**", f"{tmp_path}/**/*"):
        assert set(inputs.source(str(path)).ids()) == everything
    source = inputs.source(f"{tmp_path}/**/*.jpg")
    assert set(source.ids()) == {id for id in everything if id.endswith(".jpg")}
    with pytest.raises(UserError, match="no image or video there"):
        inputs.source(f"{tmp_path}/*/deeper/*").ids()
    found = outcome(inputs.source(f"{tmp_path}/broken/*"))
    assert found.keys() == broken.keys()
    assert "symbolic link" in found["gone.jpg"]
    assert found["notes.md"] == "not an image or video file"


def test_addresses(tmp_path):
    memory = fsspec.filesystem("memory")
    for n in range(3):
        memory.pipe(f"/limner-test/photos/{n}.png", bulk_jobs.content(n))
    memory.pipe("/limner-test/photos/notes.md", b"#")
    memory.pipe("/limner-test/photos/0.txt", b"beside 0.png on purpose")
    memory.pipe("/limner-test/rows.jsonl", b'{"image": "photos/1.png"}\n')
    shard(tmp_path / "s.tar", [("0.png", bulk_jobs.content(2))])
    memory.pipe("/limner-test/s.tar", (tmp_path / "s.tar").read_bytes())
    everything = {f"{n}.png": (said(n), {}) for n in range(3)}
    notes = {"notes.md": "not an image or video file"}
    assert outcome(inputs.source("memory://limner-test/photos")) == everything | notes
    assert outcome(inputs.source("memory://limner-test/photos/*.png")) == everything
    found = outcome(inputs.source("memory://limner-test/rows.jsonl"))
    assert found == {"photos/1.png": (said(1), {"image": "photos/1.png"})}
    assert outcome(inputs.source("memory://limner-test/s.tar")) == {"s/0": (said(2), {"key": "0"})}
    sample = inputs.source("memory://limner-test/photos").read(0)
    assert sample.extra["url"] == "memory:///limner-test/photos/0.png"
    with pytest.raises(UserError, match="no image or video there"):
        inputs.source("memory://limner-test/nowhere").ids()
    with pytest.raises(UserError, match=r"nosuch://a/b\.jsonl: cannot be read"):
        inputs.source("nosuch://a/b.jsonl").ids()


def test_a_column_is_one_of_a_table(photos, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "photos/00000.png"}) + "\n")
    with pytest.raises(UserError, match="has no column 'picture'; it has image"):
        inputs.source(str(tmp_path / "rows.jsonl"), image="picture").ids()
    with pytest.raises(UserError, match="is no table"):
        inputs.source(str(photos), image="image")

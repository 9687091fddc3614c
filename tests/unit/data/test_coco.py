import numpy as np
import pytest

import data_sets
from data_sets import dump, karpathy_image, picture
from limner.data.coco import Source
from limner.errors import Reject, UserError


def reject(source, index):
    with pytest.raises(Reject) as caught:
        source.read(index)
    return caught.value.kind, caught.value.reason


def test_karpathy_s_splits_with_all_references(tmp_path):
    settings = data_sets.coco(tmp_path)
    test = Source(**{**settings, "split": "test"})
    assert test.ids() == ("391895",)
    assert test.read(0).references == (
        "A man with a red helmet on a small moped.",
        "Man riding a motor bike.",
    )
    assert Source(**{**settings, "split": "val"}).ids() == ("60623",)
    train = Source(**settings)
    assert train.ids() == ("522418", "57870")
    missing = "listed and not there: val2014/COCO_val2014_000000522418.jpg"
    assert reject(train, 0) == ("missing", missing)
    assert train.references(0) == ("A woman cutting a large white sheet cake.",)
    assert Source(**settings, restval=False).ids() == ("57870",)


def test_images_come_out_unflipped(tmp_path):
    pixels = np.asarray(Source(**data_sets.coco(tmp_path)).read(1).image).astype(int)
    left, right = pixels[:, :24].mean((0, 1)), pixels[:, 40:].mean((0, 1))
    assert left[0] > left[2] + 200
    assert right[2] > right[0] + 200


def test_a_captions_file_of_coco(tmp_path):
    annotations = {
        "info": {"year": 2014}, "licenses": [],
        "images": [
            {"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "height": 480, "width": 640},
            {"id": 25, "file_name": "COCO_train2014_000000000025.jpg"},
            {"id": "x"},
            {"id": 30, "file_name": "../secret.jpg"},
        ],
        "annotations": [
            {"image_id": 9, "id": 661611, "caption": "Closeup of bins of food."},
            {"image_id": 25, "id": 2, "caption": "A giraffe."},
            {"image_id": 9, "id": 661977, "caption": "A meal is presented\nin plastic trays. "},
            {"image_id": 9, "id": 3, "caption": None},
            {"image_id": 404, "id": 4, "caption": "lost"},
        ],
    }  # fmt: skip
    path = dump(tmp_path / "annotations" / "captions_train2014.json", annotations)
    picture(tmp_path / "train2014" / "COCO_train2014_000000000009.jpg")
    picture(tmp_path / "train2014" / "COCO_train2014_000000000025.jpg").write_bytes(b"torn")
    picture(tmp_path / "train2014" / "COCO_train2014_000000000077.jpg")
    source = Source(path=path, images=str(tmp_path / "train2014"))
    file = "captions_train2014.json: "
    assert source.read(0).references == ("Closeup of bins of food.", "A meal is presented in plastic trays.")
    with pytest.raises(Reject, match="not an image"):
        source.read(1)
    assert {id: reject(source, n) for n, id in enumerate(source.ids()) if n > 1} == {
        f"{file}images[2]": ("shape", f"{file}images[2].file_name: missing"),
        f"{file}images[3]": (
            "shape",
            f"{file}images[3].file_name: ../secret.jpg: must be a name below the folder of the images",
        ),
        f"{file}annotations[3].caption": ("shape", f"{file}annotations[3].caption: null: must be text"),
        "404": ("mismatch", f"{file}annotations[4]: captions of '404', which images does not list"),
    }
    assert [path.name for path in source.strays()] == ["COCO_train2014_000000000077.jpg"]


def test_a_split_belongs_to_karpathy_s_file_only(tmp_path):
    settings = data_sets.coco(tmp_path)
    with pytest.raises(UserError, match="Karpathy's file: name train, val or test"):
        Source(path=settings["path"]).ids()
    dump(tmp_path / "captions.json", {"images": [], "annotations": []})
    with pytest.raises(UserError, match="one split: leave split out"):
        Source(path=str(tmp_path / "captions.json"), split="val").ids()
    with pytest.raises(UserError, match="no such folder"):
        Source(**settings, images=str(tmp_path / "nowhere")).ids()


def test_wrong_rows_of_karpathy_s_file(tmp_path):
    good = karpathy_image(1, "val", "fine")
    rows = [
        {**good, "sentences": [{"raw": "fine"}, {"tokens": ["no", "raw"]}]},
        {**karpathy_image(2, "val", "x"), "split": "dev"},
        {**karpathy_image(3, "val"), "sentences": None},
        karpathy_image(4, "val"),
    ]
    path = dump(tmp_path / "dataset_coco.json", {"images": rows})
    for row in rows:
        picture(tmp_path / str(row["filepath"]) / str(row["filename"]))
    source = Source(path=path, split="val")
    file = "dataset_coco.json: "
    assert source.read(0).references == ("fine",)
    assert {id: reject(source, n) for n, id in enumerate(source.ids()) if n} == {
        f"{file}images[0].sentences[1]": ("shape", f"{file}images[0].sentences[1].raw: missing"),
        f"{file}images[1]": (
            "shape",
            f'{file}images[1].split: "dev": must be one of train, restval, val, test',
        ),
        "3": ("shape", f"{file}images[2].sentences: null: must be a list"),
        "4": ("no references", "not one usable reference caption"),
    }

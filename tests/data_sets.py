"""Small files of exactly the shape of published data sets, with videos and images made here."""

import csv
import functools
import io
import json
from pathlib import Path

import av
import numpy as np
from PIL import Image

CATEGORIES = "music\t0\npeople\t1\ngaming\t2\nsports/actions\t3\n"


@functools.cache
def clip(kind: str = "mp4", *, shade: int = 200) -> bytes:
    """A video of five frames, 64 x 48, whose left half is red and right half blue."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, :32, 0] = frame[:, 32:, 2] = shade
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def videos(folder: Path, *names: str) -> Path:
    """Write videos of these names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip("avi" if path.suffix == ".avi" else "mp4"))
    return folder


def dump(path: Path, value: object) -> str:
    """Write JSON; returns the path as a setting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf8")
    return str(path)


def msrvtt_video(number: int, split: str, category: int = 0) -> dict[str, object]:
    """A row of `videos`."""
    return {
        "category": category, "url": "https://www.youtube.com/watch?v=9lZi22qLlEo",
        "video_id": f"video{number}", "start time": 137.72, "end time": 149.44, "split": split, "id": number,
    }  # fmt: skip


def msrvtt_sentences(number: int, *captions: str, start: int = 0) -> list[dict[str, object]]:
    """Rows of `sentences`."""
    return [
        {"caption": caption, "video_id": f"video{number}", "sen_id": start + n}
        for n, caption in enumerate(captions)
    ]


def msrvtt_info(videos: list[dict[str, object]], sentences: list[dict[str, object]]) -> dict[str, object]:
    """A whole videodatainfo.json."""
    info = {
        "contributor": "Microsoft MSM group", "data_created": "2016-04-14 14:30:20", "version": "1.0",
        "description": "This is 1.0 version of the 2016 MSR-VTT dataset.", "year": "2016",
    }  # fmt: skip
    return {"info": info, "videos": videos, "sentences": sentences}


def msrvtt(folder: Path) -> dict[str, object]:
    """Three videos of training, one of them not there, one of validation, one of test."""
    rows = [
        msrvtt_video(n, split, n % 4)
        for n, split in enumerate(("train", "train", "train", "validate", "test"))
    ]
    sentences = [
        row
        for n in range(5)
        for row in msrvtt_sentences(n, f"a person sings {n}", f"a song {n}", start=2 * n)
    ]
    dump(folder / "videodatainfo.json", msrvtt_info(rows, sentences[::-1]))
    (folder / "category.txt").write_text(CATEGORIES)
    videos(folder / "videos", *(f"video{n}.mp4" for n in (0, 1, 3, 4)))
    return {"path": str(folder / "videodatainfo.json"), "split": "train", "frames": 2}


def msvd(folder: Path) -> dict[str, object]:
    """Three clips with lists of the splits; one clip of the test list is not there."""
    lines = [
        "# MSR Video Description Corpus", "# English descriptions", "",
        "-4wsuPCjDBc_5_15 a squirrel is eating a peanut in it's shell",
        "-4wsuPCjDBc_5_15 a chipmunk is eating",
        "-7KMZQEsJW4_205_208 a man is cutting a paper",
        "zzit5b_-ukg_5_20 a man is singing",
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "AllVideoDescriptions.txt").write_text("\n".join(lines) + "\n")
    (folder / "train_list.txt").write_text("-4wsuPCjDBc_5_15\n")
    (folder / "val_list.txt").write_text("-7KMZQEsJW4_205_208\n")
    (folder / "test_list.txt").write_text("zzit5b_-ukg_5_20\n-7KMZQEsJW4_300_308\n")
    videos(folder / "YouTubeClips", "-4wsuPCjDBc_5_15.avi", "-7KMZQEsJW4_205_208.avi", "zzit5b_-ukg_5_20.avi")
    return {"path": str(folder), "split": "test", "frames": 2}


def vatex(folder: Path) -> dict[str, object]:
    """Two clips of training, one of which YouTube has lost, and a test split without captions."""
    rows = [
        {
            "videoID": "Ptf_2VRj-V0_000122_000132",
            "enCap": ["A man climbs a rope.", "Someone climbs."], "chCap": ["一个人在爬绳子。"],
        },
        {"videoID": "T19WyWwSI_A_000053_000063", "enCap": ["A boy runs."], "chCap": ["男孩在跑。"]},
    ]  # fmt: skip
    dump(folder / "vatex_training_v1.0.json", rows)
    dump(folder / "vatex_private_test_without_annotations.json", [{"videoID": "G9zN5TTuGO4_000179_000189"}])
    videos(folder / "videos", "Ptf_2VRj-V0_000122_000132.mp4", "G9zN5TTuGO4_000179_000189.mp4")
    return {"path": str(folder), "split": "train", "frames": 2}


def webvid(folder: Path) -> dict[str, object]:
    """Three rows: one video below its page's folder, one beside, one not there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "results_2M_val.csv").open("w", newline="", encoding="utf8") as file:
        rows = csv.writer(file)
        rows.writerow(["videoid", "contentUrl", "duration", "page_dir", "name"])
        for id, page, name in (
            (21179416, "077701_077750", "Aerial shot winter forest"),
            (5629184, "000001_000050", 'Senior couple, "at home", looking through book'),
            (1063125190, "097301_097350", "Lonely beautiful woman sitting on the tent"),
        ):
            rows.writerow([id, f"https://ak.picdn.net/{id}.mp4", "PT00H00M11S", page, name])
    videos(folder / "videos", "077701_077750/21179416.mp4", "5629184.mp4")
    return {"path": str(folder / "results_2M_val.csv"), "frames": 2}


def picture(path: Path) -> Path:
    """A JPEG file whose left half is red and right half blue."""
    image = Image.new("RGB", (64, 48), "red")
    image.paste("blue", (32, 0, 64, 48))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", quality=95)
    return path


def karpathy_image(cocoid: int, split: str, *captions: str) -> dict[str, object]:
    """A row of `images` in dataset_coco.json."""
    year = "train2014" if split == "train" else "val2014"
    sentences = [
        {"tokens": caption.lower().split(), "raw": caption, "imgid": cocoid % 7, "sentid": 10 * cocoid + n}
        for n, caption in enumerate(captions)
    ]
    return {
        "filepath": year, "sentids": [row["sentid"] for row in sentences],
        "filename": f"COCO_{year}_{cocoid:012d}.jpg", "imgid": cocoid % 7, "split": split,
        "sentences": sentences, "cocoid": cocoid,
    }  # fmt: skip


def coco(folder: Path) -> dict[str, object]:
    """Karpathy's file with an image of each split; that of restval is not there."""
    rows = [
        karpathy_image(
            391895, "test", "A man with a red helmet on a small moped.", "Man riding a motor bike."
        ),
        karpathy_image(522418, "restval", "A woman cutting a large white sheet cake."),
        karpathy_image(57870, "train", "A restaurant has modern wooden tables."),
        karpathy_image(60623, "val", "A young girl inhales with the intent of blowing out a candle."),
    ]
    for row in rows:
        if row["split"] != "restval":
            picture(folder / str(row["filepath"]) / str(row["filename"]))
    return {"path": dump(folder / "dataset_coco.json", {"images": rows, "dataset": "coco"}), "split": "train"}


def lavis(folder: Path) -> dict[str, object]:
    """MSR-VTT as LAVIS lays it out: a row a caption."""
    for split, number in (("train", 0), ("val", 6513), ("test", 7010)):
        rows = [
            {"video": f"video{n}.mp4", "caption": caption, "image_id": f"video{n}"}
            for caption in ("a man sings", "a song is sung")
            for n in (number, number + 1)
        ]
        dump(folder / "annotations" / f"cap_{split}.json", rows)
    videos(folder / "videos", "video0.mp4", "video6513.mp4", "video7010.mp4", "video7011.mp4")
    return {"path": str(folder / "annotations"), "split": "train", "frames": 2}

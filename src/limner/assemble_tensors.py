"""Tensors of safetensors checkpoints, copied as bytes: no weight passes through a model or a cast.

The format: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from limner.errors import UserError

CHUNK_BYTES = 16 << 20
"""What is held in memory of a tensor while it is copied."""
SHARD_BYTES = 5_000_000_000
"""A checkpoint above this is written as several files."""
INDEX = "model.safetensors.index.json"
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file."""

    file: Path
    """The file."""
    name: str
    """Its name there."""
    dtype: str
    """As safetensors writes it: "BF16"."""
    shape: tuple[int, ...]
    """Its sizes."""
    begin: int
    """Byte of the file where its data begin."""
    size: int
    """Its bytes."""

    def chunks(self) -> Iterator[bytes]:
        """The data, a piece at a time."""
        with self.file.open("rb") as file:
            file.seek(self.begin)
            left = self.size
            while left:
                data = file.read(min(CHUNK_BYTES, left))
                if not data:
                    raise UserError(f"{self.file}: ends in the middle of {self.name}; copy the file anew")
                left -= len(data)
                yield data


@dataclass(frozen=True)
class Drawn:
    """A tensor that was drawn here."""

    tensor: torch.Tensor
    """On the CPU."""

    @property
    def dtype(self) -> str:
        """As safetensors writes it."""
        return DTYPES[self.tensor.dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(self.tensor.shape)

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.tensor.numel() * self.tensor.element_size()

    def chunks(self) -> Iterator[bytes]:
        """The data in one piece."""
        yield self.tensor.contiguous().view(torch.uint8).numpy().tobytes()


Piece = Stored | Drawn


def checksum(piece: Piece) -> str:
    """SHA-256 of a tensor's bytes."""
    digest = hashlib.sha256()
    for data in piece.chunks():
        digest.update(data)
    return digest.hexdigest()


def stored(folder: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint by its name in the files.

    Raises:
        UserError: there are no safetensors weights, a shard is missing, a file is damaged or cut short.
    """
    if (folder / INDEX).is_file():
        try:
            names = json.loads((folder / INDEX).read_text(encoding="utf8"))["weight_map"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / INDEX}: is no index of weights: {error!r}") from error
        files = [folder / file for file in sorted(set(names.values()))]
    elif (folder / "model.safetensors").is_file():
        files, names = [folder / "model.safetensors"], {}
    else:
        pickled = any(folder.glob("*.bin"))
        raise UserError(
            f"{folder}: there is no model.safetensors and no {INDEX}; "
            + ("its weights are pickled: save them as safetensors first" if pickled else "copy the weights")
        )
    found = {name: tensor for file in files for name, tensor in _header(file).items()}
    lost = sorted(set(names) - set(found))
    if lost:
        raise UserError(f"{folder / INDEX}: {lost[0]} is not in {names[lost[0]]}; copy the weights anew")
    return found


def _header(file: Path) -> dict[str, Stored]:
    """The tensors of one file.

    Raises:
        UserError: it is missing, damaged or cut short.
    """
    if not file.is_file():
        raise UserError(f"{file}: is missing; the index of the checkpoint names it: copy the weights anew")
    whole = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > whole:
            raise UserError(f"{file}: is no safetensors file; a download that left only a pointer?")
        try:
            header = json.loads(opened.read(length))
            rows = {
                name: Stored(
                    file,
                    name,
                    row["dtype"],
                    tuple(row["shape"]),
                    8 + length + row["data_offsets"][0],
                    row["data_offsets"][1] - row["data_offsets"][0],
                )
                for name, row in header.items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}: a weights file is damaged: {error!r}") from error
    ends = max((row.begin + row.size for row in rows.values()), default=0)
    if ends > whole:
        raise UserError(f"{file}: is cut short: {whole:,} of {ends:,} bytes are there; copy it anew")
    return rows


def write(folder: Path, pieces: Mapping[str, Piece], *, shard_bytes: int = SHARD_BYTES) -> dict[str, str]:
    """Write a checkpoint's weights: one file, or several with an index.

    Returns:
        SHA-256 of every tensor, of the bytes as they were copied.
    """
    shards: list[list[str]] = [[]]
    held = 0
    for name, piece in pieces.items():
        if shards[-1] and held + piece.size > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += piece.size
    digests: dict[str, str] = {}
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        one = len(shards) == 1
        file = "model.safetensors" if one else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        digests |= _write_file(folder / file, names, pieces)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(piece.size for piece in pieces.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf8")
    return digests


def _write_file(file: Path, names: Sequence[str], pieces: Mapping[str, Piece]) -> dict[str, str]:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in names:
        piece = pieces[name]
        header[name] = {"dtype": piece.dtype, "shape": piece.shape, "data_offsets": [at, at + piece.size]}
        at += piece.size
    text = json.dumps(header).encode()
    text += b" " * (math.ceil(len(text) / 8) * 8 - len(text))  # the data begin at a multiple of 8 bytes
    digests: dict[str, str] = {}
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            digest = hashlib.sha256()
            for data in pieces[name].chunks():
                opened.write(data)
                digest.update(data)
            digests[name] = digest.hexdigest()
    return digests

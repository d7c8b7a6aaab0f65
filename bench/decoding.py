"""How fast one core supplies photographs to training: decoding files into the cache, and reading batches from it.

    python -m bench.decoding FOLDER [SIDE] [CROP]     # searches FOLDER for image files; defaults: 256 and 224

`decoded_per_second` counts files decoded to squares of SIDE pixels, as when the cache is filled. `fed_per_second`
counts images read from the memory-mapped cache into normalised batches of 64, with random resized crops to CROP pixels
and random horizontal flips. `cores` is the number of cores that supply a GPU with 1000 images per second.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from supsup_core.datasets.augmentation import resized_crop_and_flip
from supsup_core.datasets.base import Dataset, Images
from supsup_core.datasets.image_decoding import ImageFile, decode_square
from supsup_core.datasets.image_files import SUFFIXES

ROUNDS, BATCH, GPU_RATE = 5, 64, 1000


def rates(folder: Path, side: int, crop: int) -> dict[str, float]:
    """Returns the images per second of one core, as medians over five rounds, and the mean file size."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    files = [ImageFile(path, path.name, 0, path.stat().st_size, 0) for path in paths]
    decoded, fed = [], []
    with tempfile.NamedTemporaryFile() as cache:
        for _ in range(ROUNDS):
            started = time.perf_counter()
            squares = [decode_square(file, side) for file in files]
            decoded.append(len(files) / (time.perf_counter() - started))
        cache.write(np.stack(squares).tobytes())
        cache.flush()
        mapped = torch.from_numpy(np.memmap(cache.name, np.uint8, "c", shape=(len(files), 3, side, side)))
        images = Images(mapped, torch.zeros(len(files), dtype=torch.int64))
        dataset = Dataset(train=images, test=images, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        black = torch.zeros(1, 3, 1, 1)
        for number in range(ROUNDS):
            indices = torch.randint(0, len(files), (BATCH,), generator=torch.Generator().manual_seed(number))
            started = time.perf_counter()
            resized_crop_and_flip(dataset.normalise(images.pixels.index_select(0, indices)), number, black, crop)
            fed.append(BATCH / (time.perf_counter() - started))
    mean_kilobytes = statistics.fmean(file.size for file in files) / 1000
    return {
        "images": len(files),
        "mean_file_kb": mean_kilobytes,
        "decoded_per_second": statistics.median(decoded),
        "fed_per_second": statistics.median(fed),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = [*sys.argv[1:], *("", "256", "224")[len(sys.argv) - 1 :]]
    found = rates(Path(given[0]), int(given[1]), int(given[2]))
    cores = {
        "decoding each time": GPU_RATE * (1 / found["decoded_per_second"] + 1 / found["fed_per_second"]),
        "from the cache": GPU_RATE / found["fed_per_second"],
    }
    print(json.dumps({**found, "cores": cores}, indent=1))

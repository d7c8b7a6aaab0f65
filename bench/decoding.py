"""How fast one core feeds photographs to training: decoded into the cache once, and taken from it after that.

    python -m bench.decoding FOLDER [SIDE] [CROP]     # a folder of JPEGs, searched through; 256 and 224 when left out

`decoded`: files to squares of SIDE, as the cache is filled. `fed`: squares from the mapped cache to normalised batches
of 64, a random part of each enlarged to CROP and half of them mirrored. `cores`: how many feed a GPU of 1000 images/s.
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
from supsup_core.datasets.image_files import SUFFIXES, ImageFile, decode_square

ROUNDS, BATCH, GPU_RATE = 5, 64, 1000


def rates(folder: Path, side: int, crop: int) -> dict[str, float]:
    """Images per second of one core, medians over rounds."""
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

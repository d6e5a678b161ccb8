# SPDX-License-Identifier: Apache-2.0
"""Token rows for training: documents of the corpus, encoded and packed.

A row begins with the beginning of a document, as a prompt does; its last one is cut.
"""

import itertools
import multiprocessing
import os

import numpy as np

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes below are the parallelism
from tokenizers import Tokenizer  # noqa: E402

import corpus  # noqa: E402
from tokenizer import IDS  # noqa: E402

VALIDATION_SHARD = 1_000_000  # far from every training shard


def rows_of_shard(job):
    """An array [rows, length] of token ids, a function of the seed and the shard alone."""
    seed, shard, rows, length, tokenizer_path = job
    encoder = Tokenizer.from_file(tokenizer_path)
    stream = corpus.documents(seed, shard)
    out = np.empty((rows, length), dtype=np.uint16)
    row, filled = 0, 0
    while row < rows:
        for encoding in encoder.encode_batch(list(itertools.islice(stream, 256))):
            ids = encoding.ids + [IDS["<|endoftext|>"]]
            taken = min(len(ids), length - filled)
            out[row, filled : filled + taken] = ids[:taken]
            filled += taken
            if filled == length:
                row, filled = row + 1, 0
                if row == rows:
                    break
    return out


def training_rows(seed, shards, rows, length, tokenizer_path):
    jobs = [(seed, s, rows, length, tokenizer_path) for s in range(shards)]
    with multiprocessing.get_context("fork").Pool() as pool:  # before any CUDA context exists
        return np.concatenate(pool.map(rows_of_shard, jobs, chunksize=1))


def validation_rows(seed, rows, length, tokenizer_path):
    return rows_of_shard((seed, VALIDATION_SHARD, rows, length, tokenizer_path))

"""A text file as feeds for an encoder: input_ids, attention_mask and token_type_ids, int64 [1, tokens].

    CALIBRATION_TEXT=lines.txt TOKENIZER=tokenizer.json \\
        onnxcomp optimize model.onnx --calibration py:calibration/readers/text.py:feeds

One sample for each line that is not empty. tokenizer.json is the file beside the weights of a Hugging Face model, read
from disk: nothing is downloaded. Needs the package `tokenizers` (pip install tokenizers).
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

TEXT = Path(os.environ.get("CALIBRATION_TEXT", "calibration.txt"))
TOKENIZER = Path(os.environ.get("TOKENIZER", "tokenizer.json"))
INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # drop the last where the model has no such input
MAX_TOKENS = 128
PAD = False  # True: pad each sample to MAX_TOKENS with PAD_TOKEN, for a model with a fixed length
PAD_TOKEN = "[PAD]"
LIMIT = 256  # lines


class Text:
    """Tokenises a line only when its turn comes."""

    def __init__(self, text: Path, tokenizer: Path) -> None:
        with text.open(encoding="utf-8") as lines:
            self.lines = list(islice((line.strip() for line in lines if line.strip()), LIMIT))
        if not self.lines:
            raise ValueError(f"{text} holds no text: set CALIBRATION_TEXT or TEXT")
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        if PAD:
            pad_id = self.tokenizer.token_to_id(PAD_TOKEN)
            if pad_id is None:
                raise ValueError(f"{tokenizer} has no token {PAD_TOKEN!r}: set PAD_TOKEN")
            self.tokenizer.enable_padding(length=MAX_TOKENS, pad_id=pad_id, pad_token=PAD_TOKEN)
        else:
            self.tokenizer.no_padding()

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for line in self.lines:
            encoding = self.tokenizer.encode(line)
            columns = (encoding.ids, encoding.attention_mask, encoding.type_ids)
            yield {name: np.array([column], np.int64) for name, column in zip(INPUTS, columns, strict=False)}


def feeds() -> Text:
    return Text(TEXT, TOKENIZER)

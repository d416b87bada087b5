"""Trains a tiny English pipeline with Stanza's own trainers: no model can be downloaded where tests run.

    python tests/tiny_stanza/train.py FOLDER

``treebank.txt`` has a sentence per line, as a tree in which every constituent names its head by ``*`` and its other
children by their relation to it; constituents and dependencies both follow from that. The pipeline knows these
sentences and little else. It has the layout of Stanza's own downloads: ``resources.json`` beside ``en/``.
"""

from __future__ import annotations

import json
import logging
import random
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

TREEBANK = Path(__file__).with_name("treebank.txt")
_PIECE = re.compile(r"(?:(\*)|([a-z:]+)=)?(?:\((\w+)|([^\s()]+)/([A-Z]+))|(\))")
_ATTACHED = {".", ",", "!", "?", "n't", "'s"}
_SMALL = ["--seed", "7", "--lang", "en", "--shorthand", "en_tiny", "--cpu"]


@dataclass
class Word:
    """A word and its place in the sentence."""

    text: str
    tag: str
    head: int = 0
    relation: str = "root"


@dataclass
class Sentence:
    """One tree of the treebank: its words, numbered from 1, and its brackets."""

    words: list[Word] = field(default_factory=list)
    brackets: str = ""

    @property
    def text(self) -> str:
        """As it is written."""
        return "".join(
            word.text if not index or word.text in _ATTACHED else f" {word.text}"
            for index, word in enumerate(self.words)
        )

    @property
    def conllu(self) -> str:
        """As a block of CoNLL-U, blank line included."""
        rows = [f"# text = {self.text}"]
        for word_id, word in enumerate(self.words, 1):
            attached = word_id < len(self.words) and self.words[word_id].text in _ATTACHED
            columns = [word_id, word.text, word.text.lower(), word.tag, word.tag, "_", word.head, word.relation, "_"]
            rows.append("\t".join(map(str, [*columns, "SpaceAfter=No" if attached else "_"])))
        return "\n".join(rows) + "\n\n"

    @property
    def labels(self) -> str:
        """For the tokenizer: of each character, 1 where a token ends, 2 where the sentence does."""
        labels, end = ["0"] * len(self.text), 0
        for word in self.words:
            end = self.text.index(word.text, end) + len(word.text)
            labels[end - 1] = "1"
        return "".join([*labels[:-1], "2"])


def read(path: Path = TREEBANK) -> list[Sentence]:
    """The sentences of the treebank."""
    return [_sentence(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _sentence(line: str) -> Sentence:
    sentence, pieces = Sentence(), list(_PIECE.finditer(line))
    _, sentence.brackets = _constituent(sentence, pieces)
    assert not pieces, line
    return sentence


def _constituent(sentence: Sentence, pieces: list[re.Match[str]]) -> tuple[int, str]:
    """Reads one piece and all within it; the number of its head, and its brackets."""
    piece = pieces.pop(0)
    if piece[4]:
        sentence.words.append(Word(piece[4], piece[5]))
        return len(sentence.words), f"({piece[5]} {piece[4]})"
    children: list[tuple[str, int]] = []
    brackets = [piece[3]]
    while not pieces[0][6]:
        relation = "*" if pieces[0][1] else pieces[0][2]
        word_id, inner = _constituent(sentence, pieces)
        children.append((relation, word_id))
        brackets.append(inner)
    pieces.pop(0)
    (head,) = (word_id for relation, word_id in children if relation == "*")
    for index, (relation, word_id) in enumerate(children):
        if relation != "*":
            # In a coordination, the conjunction belongs to what follows it.
            governor = children[index + 1][1] if relation == "cc" else head
            sentence.words[word_id - 1].head, sentence.words[word_id - 1].relation = governor, relation
    return head, f"({' '.join(brackets)})"


def train(folder: Path) -> None:
    """Train tokenizer, tagger, and both parsers into ``folder``; lemmas are the words themselves."""
    import torch
    from stanza.models import constituency_parser, parser, tagger, tokenizer
    from stanza.models.constituency import parser_training

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.getLogger("stanza").setLevel("ERROR")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            data = _written(Path(scratch), read())
            tokenizer.main(_tokenizer_options(data, folder))
            tagger.main(_tagger_options(data, folder))
            parser.main(_parser_options(data, folder))
            # The trainer scores by a Java program, which is not here.
            with patch.object(parser_training, "EvaluateParser", _Scorer):
                constituency_parser.main(_constituency_options(data, folder))
    finally:
        torch.set_num_threads(threads)
    _describe(folder)


def _written(folder: Path, sentences: list[Sentence]) -> Path:
    """The treebank in the formats of the trainers; paragraphs of one to three sentences for the tokenizer."""
    shuffled = random.Random(7)
    paragraphs = [[sentence] for sentence in sentences]
    paragraphs += [shuffled.sample(sentences, shuffled.randint(2, 3)) for _ in range(100)]
    texts = [" ".join(sentence.text for sentence in paragraph) for paragraph in paragraphs]
    labels = ["0".join(sentence.labels for sentence in paragraph) for paragraph in paragraphs]
    (folder / "text.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    (folder / "labels.txt").write_text("\n\n".join(labels) + "\n", encoding="utf-8")
    (folder / "trees.conllu").write_text("".join(sentence.conllu for sentence in sentences), encoding="utf-8")
    (folder / "trees.txt").write_text("".join(f"(ROOT {s.brackets})\n" for s in sentences), encoding="utf-8")
    words = sorted({word.text.lower() for sentence in sentences for word in sentence.words})
    rows = [" ".join([word, *(f"{shuffled.gauss(0, 1):.4f}" for _ in range(16))]) for word in words]
    (folder / "vectors.txt").write_text(f"{len(rows)} 16\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder


class _Scorer:
    """Stands in for Stanza's scorer of constituents: the share of trees that are wholly right."""

    def __init__(self, kbest: int | None = None):
        assert kbest is None

    def __enter__(self) -> _Scorer:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def process(self, results: list[Any]) -> Any:
        """Score the trees that were parsed."""
        from stanza.protobuf import EvaluateParserResponse

        share = sum(result.predictions[0].tree == result.gold for result in results) / len(results)
        return EvaluateParserResponse(f1=share)


def _tokenizer_options(data: Path, folder: Path) -> list[str]:
    files = {"txt_file": data / "text.txt", "label_file": data / "labels.txt"}
    files |= {f"dev_{name}": path for name, path in files.items()}
    files |= {"dev_conll_gold": data / "trees.conllu", "mwt_json_file": data / "expansions.json"}
    (data / "expansions.json").write_text("[]", encoding="utf-8")
    sizes = {"steps": 300, "eval_steps": 300, "hidden_dim": 32, "unit_dropout": 0.1, "dropout": 0.1}
    return [*_SMALL, *_saved(folder, "tokenize"), *_options({**files, **sizes})]


def _tagger_options(data: Path, folder: Path) -> list[str]:
    sizes = {"max_steps": 200, "eval_interval": 50, "hidden_dim": 32, "char_hidden_dim": 32, "char_emb_dim": 16}
    sizes |= {"deep_biaff_hidden_dim": 32, "composite_deep_biaff_hidden_dim": 16, "word_emb_dim": 16, "batch_size": 200}
    sizes |= {"tag_emb_dim": 8, "transformed_dim": 16, "num_layers": 1, "word_cutoff": 0, "dropout": 0.2}
    return [*_SMALL, *_saved(folder, "pos"), "--no_pretrain", *_trees(data, "conllu"), *_options(sizes)]


def _parser_options(data: Path, folder: Path) -> list[str]:
    sizes = {"max_steps": 200, "eval_interval": 50, "hidden_dim": 48, "char_hidden_dim": 32, "char_emb_dim": 16}
    sizes |= {"deep_biaff_hidden_dim": 48, "word_emb_dim": 16, "tag_emb_dim": 16, "transformed_dim": 16}
    sizes |= {"num_layers": 1, "word_cutoff": 0, "dropout": 0.2, "batch_size": 200, "optim": "adam", "lr": 0.003}
    flags = ["--no_pretrain", "--no_second_optim", "--no_checkpoint"]
    return [*_SMALL, *_saved(folder, "depparse"), *flags, *_trees(data, "conllu"), *_options(sizes)]


def _constituency_options(data: Path, folder: Path) -> list[str]:
    from stanza.models.common.pretrain import Pretrain

    vectors = folder / "en" / "pretrain" / "tiny.pt"
    Pretrain(str(vectors), str(data / "vectors.txt")).load()
    sizes = {"epochs": 12, "epoch_size": 144, "hidden_size": 48, "delta_embedding_dim": 32, "tag_embedding_dim": 16}
    sizes |= {"transition_hidden_size": 16, "pattn_num_layers": 0, "lattn_d_proj": 0, "num_lstm_layers": 1}
    sizes |= {"optim": "adamw", "learning_rate": 0.004, "train_batch_size": 4, "predict_dropout": 0.1}
    sizes |= {"word_dropout": 0.0, "lstm_input_dropout": 0.0}
    flags = ["--no_retag", "--no_checkpoint", "--no_multistage", "--wordvec_pretrain_file", str(vectors)]
    return [*_SMALL, *_saved(folder, "constituency"), *flags, *_trees(data, "txt"), *_options(sizes)]


def _saved(folder: Path, processor: str) -> list[str]:
    return ["--save_dir", str(folder / "en" / processor), "--save_name", "tiny.pt"]


def _trees(data: Path, kind: str) -> list[str]:
    return ["--train_file", str(data / f"trees.{kind}"), "--eval_file", str(data / f"trees.{kind}")]


def _options(values: dict[str, object]) -> list[str]:
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def _describe(folder: Path) -> None:
    """``resources.json``, as Stanza's downloader writes it."""
    models = sorted(path.relative_to(folder / "en").with_suffix("") for path in folder.glob("en/*/tiny.pt"))
    resources: dict[str, object] = {model.parent.name: {model.name: {"md5": ""}} for model in models}
    resources["constituency"] = {"tiny": {"md5": "", "dependencies": [{"model": "pretrain", "package": "tiny"}]}}
    package = {model.parent.name: model.name for model in models if model.parent.name != "pretrain"}
    resources |= {"packages": {"default": {**package, "lemma": "identity"}}, "lang_name": "English"}
    described = {"en": resources, "english": {"alias": "en"}}
    (folder / "resources.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


if __name__ == "__main__":
    train(Path(sys.argv[1]))

from __future__ import annotations

import csv
import gzip
import json
import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata, from_fastmri_row, read_fastmri_plus
from ctxrecon.phantom.protocols import pathology_counts, protocol_counts
from ctxrecon.priors.tokenizer import (
    build_tokenizer,
    check_prompt_length,
    count_tokens,
    learn_merges,
    shorten_prompt,
)

FASTMRI = (
    "knee, Slice 20, PDFS, Pathology: 1 Meniscus Tear, Sequence: TurboSpinEcho, TR: 3120, TE: 33, "
    "TI: 100, Flip angle: 140"
)
SKM_TEA = "Qdess, Knee, Slice 46, Age: 48, Sex: F, TR: 20.36, TE: 6.428, Flip Angle: 20"
MANY = ScanMetadata(
    "knee",
    20,
    "PDFS",
    ("Cartilage - Partial Thickness loss/defect", "Bone-Fracture/Contusion/dislocation"),
    tr=3120,
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_the_words_of_prompts_are_single_tokens(tokenizer):
    assert 512 < len(tokenizer) < 1000
    assert tokenizer.model_max_length == 77
    pieces = tokenizer.tokenize(FASTMRI)
    assert pieces[:6] == ["knee</w>", ",</w>", "slice</w>", "2</w>", "0</w>", ",</w>"]
    expected = len(re.findall(r"[a-z]+|\d|[^\sa-z\d]+", FASTMRI.lower()))
    assert len(pieces) == expected
    assert count_tokens(tokenizer, FASTMRI) == expected + 2


def test_start_end_and_padding(tokenizer):
    ids = tokenizer("knee", padding="max_length")["input_ids"]
    assert len(ids) == 77
    assert ids[0] == tokenizer.bos_token_id
    assert set(ids[2:]) == {tokenizer.eos_token_id}
    # CLIP's text model may look for the end of a prompt as the largest id
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_every_text_is_covered_and_comes_back(tokenizer):
    for text in ["éœ漢😀", "a\x00b", "TR: 3120", "".join(map(chr, range(32, 256)))]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.eos_token_id not in ids[1:-1]  # also the token for the unknown
    assert len({tuple(tokenizer(chr(code))["input_ids"]) for code in range(33, 65)}) == 32
    decoded = tokenizer.decode(tokenizer("knee, TR: 31")["input_ids"], skip_special_tokens=True)
    assert decoded.replace(" ", "") == "knee,tr:31"


def test_it_is_learned_the_same_every_time(tokenizer):
    assert build_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_a_saved_tokenizer_is_a_stock_one(tokenizer, tmp_path):
    from transformers import AutoTokenizer, CLIPTokenizer

    tokenizer.save_pretrained(tmp_path)
    for loader in (CLIPTokenizer, AutoTokenizer):
        again = loader.from_pretrained(tmp_path)
        assert isinstance(again, CLIPTokenizer)
        assert again.model_max_length == 77
        for text in (FASTMRI, SKM_TEA, "Ödem 😀"):
            assert again(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_byte_pairs_are_merged_by_frequency_then_alphabet():
    merges = learn_merges(Counter({"tear": 5, "te": 2, "ab": 2}), 3)
    # t-e in "tear" counts 5; in "te" the end of the word makes another symbol
    assert merges[0] == ("a", "r</w>")
    assert merges[1] == ("e", "ar</w>")
    assert merges[2] == ("t", "ear</w>")
    assert learn_merges(Counter({"ab": 1}), 10) == [("a", "b</w>")]


def test_prompts_that_fit_pass_in_silence(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        check_prompt_length(tokenizer, FASTMRI)
        check_prompt_length(tokenizer, [SKM_TEA, "", FASTMRI])
        check_prompt_length(tokenizer, [])
    assert not caplog.records


def test_the_limit_is_exact(tokenizer):
    check_prompt_length(tokenizer, "1" * 75)
    with pytest.raises(InputError, match="77 tokens, got 78"):
        check_prompt_length(tokenizer, "1" * 76)


def test_a_long_prompt_is_refused_with_what_would_be_cut(tokenizer):
    prompt = MANY.to_prompt() + ", " + ", ".join(f"{n} Mass" for n in range(10, 30))
    count = count_tokens(tokenizer, prompt)
    with pytest.raises(InputError) as caught:
        check_prompt_length(tokenizer, [FASTMRI, prompt])
    assert f"77 tokens, got {count}" in str(caught.value)
    cut = present(re.search(r"'(.*)' would be cut off", str(caught.value)))[1]
    assert prompt.endswith(cut)
    kept = prompt.removesuffix(", " + cut)
    assert count_tokens(tokenizer, kept) <= 77
    assert count_tokens(tokenizer, f"{kept}, {cut.split(', ')[0]}") > 77


def test_a_long_prompt_loses_its_last_parts(tokenizer):
    assert shorten_prompt(tokenizer, FASTMRI) == FASTMRI
    assert shorten_prompt(tokenizer, "") == ""
    assert shorten_prompt(tokenizer, "1" * 76) == ""
    parts = MANY.to_prompt().split(", ") + [f"{n} Mass" for n in range(10, 30)]
    short = shorten_prompt(tokenizer, ", ".join(parts)).split(", ")
    assert short == parts[: len(short)]
    assert count_tokens(tokenizer, ", ".join(short)) <= 77
    assert count_tokens(tokenizer, ", ".join(parts[: len(short) + 1])) > 77


def test_drawn_prompts_with_two_common_findings_fit(tokenizer):
    for protocol in list(protocol_counts())[:100]:
        labels = tuple(pathology_counts(present(protocol.anatomy)))[:2]
        prompt = replace(protocol, slice=12, pathologies=labels).to_prompt()
        assert count_tokens(tokenizer, prompt) <= 77
        check_prompt_length(tokenizer, prompt)


@pytest.fixture(scope="module")
def clip_tokenizer(shared_data: Path, tmp_path_factory):
    """The vocabulary of CLIP ViT-L/14 itself, as its authors publish it."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    path = shared_data / "clip_vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    # printable bytes first, then the others, as in OpenAI's code
    alphabet = sorted(ByteLevel.alphabet(), key=lambda char: (ord(char) >= 256, ord(char)))
    tokens = [*alphabet, *(char + "</w>" for char in alphabet)]
    tokens += ["".join(merge.split()) for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path_factory.mktemp("clip")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return CLIPTokenizer.from_pretrained(folder)


def test_clip_splits_prompts_as_ours_does(clip_tokenizer, tokenizer):
    assert len(clip_tokenizer) == 49408
    # the ids that CLIP ViT-L/14 is known to give
    assert clip_tokenizer("a photo of a cat")["input_ids"] == [
        *(49406, 320, 1125, 539, 320, 2368, 49407)
    ]
    for text in (FASTMRI, SKM_TEA, MANY.to_prompt()):
        words: list[list[str]] = [[], []]
        for kind, found in zip((clip_tokenizer, tokenizer), words, strict=True):
            found += "".join(kind.tokenize(text)).split("</w>")
        assert words[0] == words[1]
    assert count_tokens(clip_tokenizer, FASTMRI) > count_tokens(tokenizer, FASTMRI)


def test_clip_refuses_the_longest_real_prompts(clip_tokenizer, tokenizer, shared_data):
    found = read_fastmri_plus(shared_data / "fastmri_plus" / "knee.csv")
    with (shared_data / "fastmri_metadata" / "knee_multicoil.csv").open() as file:
        rows = {row["fname"].removesuffix(".h5"): row for row in csv.DictReader(file)}
    varied = [key for key in found if key[0] in rows]
    varied.sort(key=lambda key: -len(set(found[key])))
    longest = from_fastmri_row(rows[varied[0][0]], varied[0][1], found).to_prompt()
    assert count_tokens(clip_tokenizer, longest) > 77
    with pytest.raises(InputError, match=r"77 tokens, .*Flip angle: "):
        check_prompt_length(clip_tokenizer, longest)
    single = next(key for key in varied if len(set(found[key])) == 1)
    check_prompt_length(
        clip_tokenizer, from_fastmri_row(rows[single[0]], single[1], found).to_prompt()
    )

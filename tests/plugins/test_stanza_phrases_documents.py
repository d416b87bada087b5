"""Phrases of hand-marked texts, from real Stanza documents whose parses were written by hand."""

from __future__ import annotations

import pytest

from mta_plugins.span_extractors import stanza_phrases

TAGS = {"DT": "DET", "JJ": "ADJ", "NN": "NOUN", "NNS": "NOUN", "NNP": "PROPN", "PRP": "PRON", "PRP$": "PRON"}
TAGS |= {"WP": "PRON", "VBD": "VERB", "VBN": "VERB", "VBP": "VERB", "VBZ": "VERB", "VB": "VERB", "VBG": "VERB"}
TAGS |= {"MD": "AUX", "AUX": "AUX", "RB": "ADV", "NEG": "PART", "TO": "PART", "POS": "PART", "IN": "ADP", "RP": "ADP"}
TAGS |= {"CC": "CCONJ", "CD": "NUM", "SYM": "SYM", "DEG": "PART", "DEC": "PART", "AS": "PART", "PN": "PRON"}
TAGS |= {"NR": "PROPN", "ART": "DET", "PPER": "PRON", "VVFIN": "VERB", "VVPP": "VERB", "COMP": "SCONJ"}

# Text; one tree per sentence; the phrases.
CONSTITUENTS = [
    ("", [], []),
    ("\n \n", [], []),
    (
        "The old keeper has carefully repaired the broken lamp.",
        [
            "(S (NP (DT The) (JJ old) (NN keeper)) (VP (AUX has) (ADVP (RB carefully)) (VP (VBN repaired) "
            "(NP (DT the) (VBN broken) (NN lamp)))) (. .))"
        ],
        ["The old keeper", "has carefully repaired", "the broken lamp"],
    ),
    (
        "The keeper of the lighthouse didn't know.",
        [
            "(S (NP (NP (DT The) (NN keeper)) (PP (IN of) (NP (DT the) (NN lighthouse)))) "
            "(VP (AUX did) (NEG n't) (VP (VB know))) (. .))"
        ],
        ["The keeper", "the lighthouse", "didn't know"],
    ),
    (
        "The company's revenue (in May) rose fast!",
        [
            "(S (NP (NP (NP (DT The) (NN company) (POS 's)) (NN revenue)) (PRN (-LRB- -LRB-) "
            "(PP (IN in) (NP (NNP May))) (-RRB- -RRB-))) (VP (VBD rose) (ADVP (RB fast))) (. !))"
        ],
        ["The company's revenue", "May", "rose fast"],
    ),
    (
        "He wants to sell a big, red bicycle.",
        [
            "(S (NP (PRP He)) (VP (VBZ wants) (S (VP (TO to) (VP (VB sell) "
            "(NP (DT a) (JJ big) (, ,) (JJ red) (NN bicycle)))))) (. .))"
        ],
        ["He", "wants", "sell", "a big, red bicycle"],
    ),
    (
        "Cats and small dogs sleep.",
        ["(S (NP (NNS Cats) (CC and) (JJ small) (NNS dogs)) (VP (VBP sleep)) (. .))"],
        ["Cats", "small dogs", "sleep"],
    ),
    (
        "Anna and her very old brother, the doctor, left.",
        [
            "(S (NP (NP (NNP Anna)) (CC and) (NP (NP (PRP$ her) (ADJP (RB very) (JJ old)) (NN brother)) (, ,) "
            "(NP (DT the) (NN doctor)) (, ,))) (VP (VBD left)) (. .))"
        ],
        ["Anna", "her very old brother", "the doctor", "left"],
    ),
    (
        "The fact that he sold it surprised us.",
        [
            "(S (NP (DT The) (NN fact) (SBAR (COMP that) (S (NP (PRP he)) (VP (VBD sold) (NP (PRP it)))))) "
            "(VP (VBD surprised) (NP (PRP us))) (. .))"
        ],
        ["The fact", "he", "sold", "it", "surprised", "us"],
    ),
    (
        "Who is the new doctor?",
        ["(SBARQ (WHNP (WP Who)) (SQ (VP (AUX is) (NP (DT the) (JJ new) (NN doctor)))) (. ?))"],
        ["Who", "the new doctor"],
    ),
    (
        "Has it rained?",
        ["(SQ (AUX Has) (NP (PRP it)) (VP (VBN rained)) (. ?))"],
        ["it", "rained"],
    ),
    (
        "She will not have been seen giving up the map.",
        [
            "(S (NP (PRP She)) (VP (MD will) (NEG not) (VP (AUX have) (VP (AUX been) (VP (VBN seen) "
            "(S (VP (VBG giving) (PRT (RP up)) (NP (DT the) (NN map)))))))) (. .))"
        ],
        ["She", "will not have been seen", "giving up", "the map"],
    ),
    (
        "They opened and closed the door, and they will run and jump.",
        [
            "(S (S (NP (PRP They)) (VP (VBD opened) (CC and) (VBD closed) (NP (DT the) (NN door)))) (, ,) (CC and) "
            "(S (NP (PRP they)) (VP (MD will) (VP (VP (VB run)) (CC and) (VP (VB jump))))) (. .))"
        ],
        ["They", "opened", "closed", "the door", "they", "will run", "jump"],
    ),
    (
        '"The “big” deal" fell apart.',
        ["(S (NP (`` \") (DT The) (`` “) (JJ big) ('' ”) (NN deal) ('' \")) (VP (VBD fell) (ADVP (RB apart))) (. .))"],
        ["The “big” deal", "fell apart"],
    ),
    (
        "😀 Rain 👍🏽!",
        ["(FRAG (SYM 😀) (NP (NN Rain)) (SYM 👍🏽) (. !))"],
        ["Rain"],
    ),
    (
        "Rain.\n\n \tHe has\r\n\r\n  gone .",
        ["(FRAG (NP (NN Rain)) (. .))", "(S (NP-SBJ (PRP He)) (VP (AUX has) (VP=2 (VBN gone))) (. .))"],
        ["Rain", "He", "has\r\n\r\n  gone"],
    ),
    (
        "他修了中国的旧灯。",
        [
            "(IP (NP (PN 他)) (VP (VBD 修) (AS 了) (NP (DNP (NP (NR 中国)) (DEG 的)) (ADJP (JJ 旧)) (NP (NN 灯)))) "
            "(PU 。))"
        ],
        ["他", "修了", "中国的旧灯"],
    ),
    (
        "我买的书",
        ["(NP (CP (IP (NP (PN 我)) (VP (VBD 买))) (DEC 的)) (NP (NN 书)))"],
        ["我", "买", "书"],
    ),
    (
        "Er liest und hat das Buch gelesen.",
        [
            "(S (PPER Er) (CS (S (VVFIN liest)) (CC und) (S (AUX hat) (VP (NP (ART das) (NN Buch)) (VVPP gelesen)))) "
            "(. .))"
        ],
        ["Er", "liest", "das Buch", "gelesen"],
    ),
    ("Nothing known here 100 %", ["(FRAG (JJ Nothing) (JJ known) (RB here) (QP (CD 100) (SYM %)))"], []),
]

# Text; per sentence its words as text/tag/head/relation, contractions as text=word+word; the phrases.
DEPENDENCIES = [
    ("", [], []),
    (
        "The keeper of John Smith's very old lamp gave up quickly.",
        [
            "The/DET/2/det keeper/NOUN/10/nsubj of/ADP/9/case John/PROPN/9/nmod:poss Smith/PROPN/4/flat 's/PART/4/case "
            "very/ADV/8/advmod old/ADJ/9/amod lamp/NOUN/2/nmod gave/VERB/0/root up/ADP/10/compound:prt "
            "quickly/ADV/10/advmod ./PUNCT/10/punct"
        ],
        ["The keeper", "John Smith's very old lamp", "gave up quickly"],
    ),
    (
        "She is a good doctor.",
        ["She/PRON/5/nsubj is/AUX/5/cop a/DET/5/det good/ADJ/5/amod doctor/NOUN/0/root ./PUNCT/5/punct"],
        ["She", "a good doctor"],
    ),
    (
        "Cats and big, red dogs who bark do n't sleep.",
        [
            "Cats/NOUN/11/nsubj and/CCONJ/6/cc big/ADJ/6/amod ,/PUNCT/5/punct red/ADJ/6/amod dogs/NOUN/1/conj "
            "who/PRON/8/nsubj bark/VERB/6/acl:relcl do/AUX/11/aux n't/PART/11/advmod sleep/VERB/0/root ./PUNCT/11/punct"
        ],
        ["Cats", "big, red dogs", "who", "bark", "do n't sleep"],
    ),
    (
        "Der alte Mann hat im Haus das Buch gelesen.",
        [
            "Der/DET/3/det alte/ADJ/3/amod Mann/NOUN/10/nsubj hat/AUX/10/aux im=in/ADP/7/case+dem/DET/7/det "
            "Haus/NOUN/10/obl das/DET/9/det Buch/NOUN/10/obj gelesen/VERB/0/root ./PUNCT/10/punct"
        ],
        ["Der alte Mann", "Haus", "das Buch", "gelesen"],
    ),
    (
        "Die in Berlin lebenden Kinder rufen laut.",
        [
            "Die/DET/5/det in/ADP/3/case Berlin/PROPN/4/obl lebenden/ADJ/5/amod Kinder/NOUN/6/nsubj rufen/VERB/0/root "
            "laut/ADV/6/advmod ./PUNCT/6/punct"
        ],
        ["Die in Berlin lebenden Kinder", "rufen laut"],
    ),
    (
        "Le petit chat du voisin n'a pas mangé la soupe chaude.",
        [
            "Le/DET/3/det petit/ADJ/3/amod chat/NOUN/10/nsubj du=de/ADP/6/case+le/DET/6/det voisin/NOUN/3/nmod "
            "n'/ADV/10/advmod a/AUX/10/aux pas/ADV/10/advmod mangé/VERB/0/root la/DET/12/det soupe/NOUN/10/obj "
            "chaude/ADJ/12/amod ./PUNCT/10/punct"
        ],
        ["Le petit chat", "voisin", "n'a pas mangé", "la soupe chaude"],
    ),
    (
        "Dámelo, una casa llena de libros.",
        [
            "Dámelo=da/VERB/0/root+me/PRON/1/iobj+lo/PRON/1/obj ,/PUNCT/6/punct una/DET/6/det casa/NOUN/1/obj "
            "llena/ADJ/6/amod de/ADP/9/case libros/NOUN/7/obl ./PUNCT/1/punct"
        ],
        ["Dámelo", "una casa", "libros"],
    ),
    (
        "私は日本の首都を見ました。",
        [
            "私/PRON/7/nsubj は/ADP/1/case 日本/PROPN/5/nmod の/ADP/3/case 首都/NOUN/7/obj を/ADP/5/case "
            "見/VERB/0/root まし/AUX/7/aux た/AUX/7/aux 。/PUNCT/7/punct"
        ],
        ["私", "日本の首都", "見ました"],
    ),
    (
        "那本我买的书很好",
        [
            "那/DET/6/det 本/NOUN/1/clf 我/PRON/4/nsubj 买/VERB/6/acl:relcl 的/PART/4/mark:rel 书/NOUN/8/nsubj "
            "很/ADV/8/advmod 好/ADJ/0/root"
        ],
        ["我", "买", "书"],
    ),
    (
        "قرأ الولد الكتاب",
        ["قرأ/VERB/0/root الولد/NOUN/1/nsubj الكتاب/NOUN/1/obj"],
        ["قرأ", "الولد", "الكتاب"],
    ),
    ("😀 e\u0301 !", ["😀/SYM/2/discourse e\u0301/NOUN/0/root !/PUNCT/2/punct"], ["e\u0301"]),
    (
        "Rain.\n\n\u200bJa, er rannte heim.",
        [
            "Rain/NOUN/0/root ./PUNCT/1/punct",
            "\u200bJa/INTJ/4/discourse ,/PUNCT/1/punct er/PRON/4/nsubj rannte/VERB/0/root heim/ADV/4/advmod "
            "./PUNCT/4/punct",
        ],
        ["Rain", "er", "rannte heim"],
    ),
]


def phrases_and_words(text, sentences, trees=()):
    """The spans of a document made of these sentences, as strings."""
    from stanza import Document

    document = Document(sentences, text=text)
    for sentence, tree in zip(document.sentences, trees, strict=bool(trees)):
        sentence.constituency = tree
    spans = stanza_phrases._span_set(text, document.sentences, all_words=False)
    return tuple([text[start:end] for start, end in spans[name]] for name in ("phrases", "words"))


def located(text, word, offset):
    start = text.index(word, offset)
    return {"text": word, "start_char": start, "end_char": start + len(word)}


@pytest.mark.parametrize(("text", "brackets", "expected"), CONSTITUENTS, ids=lambda value: str(value)[:20])
def test_phrases_by_constituents(text, brackets, expected):
    from stanza.models.constituency.tree_reader import read_trees

    trees = read_trees("".join(f"(ROOT {line})" for line in brackets))
    sentences, offset = [], 0
    for tree in trees:
        sentences.append([])
        for word_id, leaf in enumerate(tree.yield_preterminals(), 1):
            word = leaf.children[0].label.replace("-LRB-", "(").replace("-RRB-", ")")
            entry = {"id": word_id, "upos": TAGS.get(leaf.label, "PUNCT"), **located(text, word, offset)}
            offset = entry["end_char"]
            sentences[-1].append(entry)
    assert phrases_and_words(text, sentences, trees)[0] == expected


def entries(text, line, offset):
    """The words of one sentence as Stanza has them; those of a contraction have no place of their own."""
    word_id, sentence = 0, []
    for piece in line.split(" "):
        whole, contracted, parts = piece.rpartition("=")
        words = [part.split("/") for part in (parts.split("+") if contracted else [piece])]
        token = located(text, whole if contracted else words[0][0], offset)
        offset = token["end_char"]
        if contracted:
            sentence.append({"id": (word_id + 1, word_id + len(words)), **token})
        for word, tag, head, relation in words:
            word_id += 1
            position = {"text": word} if contracted else token
            sentence.append({"id": word_id, "upos": tag, "head": int(head), "deprel": relation, **position})
    return sentence, offset


@pytest.mark.parametrize(("text", "lines", "expected"), DEPENDENCIES, ids=lambda value: str(value)[:20])
def test_phrases_by_dependencies(text, lines, expected):
    sentences, offset = [], 0
    for line in lines:
        sentence, offset = entries(text, line, offset)
        sentences.append(sentence)
    assert phrases_and_words(text, sentences)[0] == expected


def test_words_lie_in_phrases_up_to_the_next_one_and_contractions_stay_whole():
    text = "Dámelo, la casa del  rey!"
    line = "Dámelo=da/VERB/0/root+me/PRON/1/iobj+lo/PRON/1/obj ,/PUNCT/6/punct la/DET/6/det casa/NOUN/1/obj "
    line += "del=de/ADP/9/case+el/DET/9/det rey/NOUN/6/nmod !/PUNCT/1/punct"
    sentences, _ = entries(text, line, 0)
    assert phrases_and_words(text, [sentences])[1] == ["Dámelo", "la ", "casa", "rey"]


def test_all_words_are_those_that_are_no_punctuation():
    from stanza import Document

    text = "In May, 50 % (fast) 😀 …"
    line = "In/ADP/2/case May/PROPN/0/root ,/PUNCT/2/punct 50/NUM/5/nummod %/SYM/2/nmod (/PUNCT/7/punct fast/ADV/2/x "
    sentences, _ = entries(text, line + ")/PUNCT/7/punct 😀/PUNCT/2/x …/PUNCT/2/punct", 0)
    spans = stanza_phrases._span_set(text, Document([sentences], text=text).sentences, all_words=True)
    # "%" is punctuation to Unicode, a smiley is not.
    assert [text[start:end] for start, end in spans["words"]] == ["In", "May", "50", "fast", "😀"]

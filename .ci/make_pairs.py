"""Make the pairs of notebook 15c, as semantic tokens:  python make_pairs.py FOLDER OUT [--sounds DIR]

A word and a non-word, or a grammatical sentence and one that is not, spoken by the same voice of the synthesizer Flite.
In OUT (audiolm_edu/pairs) it writes pairs.csv, a row for each pair, and pairs.i16, the tokens of `SemanticTokenizer
.from_pretrained('speech')`, 25 a second: real one, other one, next pair. With --sounds also the sound, ID_real.flac and
ID_other.flac. FOLDER is the recordings the model was trained on, as `read_folder` takes them: `heard` counts a word in the
transcripts of its training people. Same packages and FOLDER, same pairs. Needs apt-get install libflite1 scowl.

Words are the commoner ones of SCOWL (sizes 10 and 20; free to use, copy, modify, distribute and sell). Half of them were
heard in training, half are in no transcript, equally many of every length. A non-word is made as Wuggy does it: cut the
word's phones into clusters of consonants and vowels, change a third of these for others that stand between the same
neighbours elsewhere (every three phones in a row occur in some word), keep the number of phones, and take, of all that
are no word (sizes up to 70), the one whose pairs of phones are about as common as the word's.
"""
import argparse, csv, ctypes, itertools, math, random, re, tempfile  # noqa: E401
from collections import Counter, defaultdict
from ctypes import c_char_p, c_int, c_void_p
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from audiolm_edu.corpus import held_out, read_folder
from audiolm_edu.semantic import SemanticTokenizer
from make_yardstick import SR, VOICES, flite, function, say

SCOWL = "/usr/share/dict/scowl"
LENGTHS, WORDS, SENTENCES = range(3, 9), 17, 12  # words of 3 to 8 phones; pairs of a length, or of a paradigm, by a voice
MERGED = {"ax": "ah", "ao": "aa"}                # not told apart by many speakers

# --- sentences: [the real one|the other one]; {noun[0]} is singular, {verb[0]} goes with a plural
SLOTS = dict(
    noun=[(n, n + "s") for n in "boy girl friend brother sister teacher doctor neighbor king driver".split()],
    thing=[(n, n + "s") for n in "book chair door letter picture stone table window bird hand".split()],
    verb=[(v, v + "s") for v in "sleep sing smile work wait walk laugh speak listen read".split()],
    past=[tuple(v.split()) for v in ("took taken,wrote written,saw seen,broke broken,gave given,ate eaten,drew drawn,"
                                     "knew known,shook shaken,rode ridden,stole stolen,chose chosen,threw thrown").split(",")],
    takes="took found made brought caught held opened wanted".split(),
    alone="slept smiled arrived fell waited laughed died listened".split(),
    when=["every night", "all day", "in the morning", "here", "at home", "after dinner"],
    man="man boy king father brother son".split(), woman="woman girl queen mother sister daughter".split(),
    saw="saw hurt asked blamed found taught".split(), who="she he they we i you".split(), one="she he".split(),
    old="old young little strange white happy".split(), place="house room street water garden city".split(),
    ask="where when why how".split(), name="tom mary john anna philip peter".split(),
    please=["can i have", "could i get", "i would like", "please make me", "i want"],
    size="small medium large".split(), drink="latte americano cappuccino espresso mocha coffee".split(),
    roast=["dark roast", "medium roast", "light roast"],
    milk=["some milk", "brown sugar", "a little cream", "no sugar", "whipped cream"])
GRAMMAR = {
    "subject and verb": ["the {noun[0]} [{verb[1]}|{verb[0]}] {when}", "the {noun[1]} [{verb[0]}|{verb[1]}] {when}"],
    "subject far from verb": ["the {noun[0]} near the {thing[1]} [{verb[1]}|{verb[0]}] {when}",
                              "the {noun[1]} near the {thing[0]} [{verb[0]}|{verb[1]}] {when}"],
    "this and these": ["{who} saw [this|these] {thing[0]} again", "{who} saw [these|this] {thing[1]} again"],
    "there is": ["there [is|are] one {thing[0]} in the {place}", "there [are|is] two {thing[1]} in the {place}"],
    "himself": ["the {man} {saw} [himself|herself] {when}", "the {woman} {saw} [herself|himself] {when}"],
    "he and him": ["[he|him] gave it to {name} {when}", "{name} gave it to [him|he] {when}"],
    "took and taken": ["{one} has [{past[1]}|{past[0]}] it already", "{one} [{past[0]}|{past[1]}] it already"],
    "after will": ["{one} will [{verb[0]}|{verb[1]}] {when}", "{one} always [{verb[1]}|{verb[0]}] {when}"],
    "object": ["{who} [{takes}|{alone}] the {thing[0]}", "the {noun[0]} [{alone}|{takes}] {when}"],
    "adjective": ["the [{old} {noun[0]}|{noun[0]} {old}] {alone} {when}", "{who} saw the [{old} {man}|{man} {old}] {when}"],
    "question": ["{ask} [did you|you did] see the {thing[0]}", "{ask} [can she|she can] find the {thing[1]}"],
    "preposition": ["{who} went [into the|the into] {place}", "the {noun[0]} {alone} [in the|the in] {place}"],
    "shuffled": ["the {old} {noun[0]} {alone} in the {place}", "{who} {takes} the {old} {thing[0]} {when}"]}
DOMAIN = {
    "coffee, number": ["{please} [one {size} {drink}|one {size} {drink}s] with {milk}",
                       "{please} [two {size} {drink}s|two {size} {drink}] with {milk}"],
    "coffee, two swapped": ["{please} [a {size}|{size} a] {drink} with {milk}", "{please} a {roast} [{drink} with|with {drink}] {milk}"],
    "coffee, shuffled": ["{please} a {size} {drink} with {milk}", "{please} a {size} {roast} {drink}"]}


def sentence_pair(paradigm: str, template: str, rng: random.Random) -> tuple[str, str]:
    text = template.format(**{k: rng.choice(v) for k, v in SLOTS.items()})
    real, other = (re.sub(r"\[(.*?)\|(.*?)\]", side, text) for side in (r"\1", r"\2"))
    while "shuffled" in paradigm and other == real:
        other = " ".join(rng.sample(words := real.split(), len(words)))
    return real, other


def sentence_pairs(heard: Counter) -> list[dict]:
    rows = []
    for kind, group in ("grammar", GRAMMAR), ("domain", DOMAIN):
        for paradigm, templates in group.items():
            rng, found = random.Random(paradigm), []
            for voice, n in itertools.product(VOICES, range(SENTENCES)):
                while (pair := sentence_pair(paradigm, templates[n % 2], rng)) in found:
                    pass
                found.append(pair)
                rows.append(dict(kind=kind, paradigm=paradigm, voice=voice, real=pair[0], other=pair[1], phones="",
                                 heard=min(heard[w] for w in " ".join(pair).split())))
    return rows


# --- words and non-words
def lexicon():
    "Word -> its phones; those of a vowel end in 1 (stressed) or 0."
    library = ctypes.CDLL("libflite_cmulex.so.1")
    lex = function(library, "cmu_lex_init", c_void_p)()
    look_up = function(flite, "lex_lookup", c_void_p, c_void_p, c_char_p, c_char_p, c_void_p)
    first, rest = (function(flite, f, c_void_p, c_void_p) for f in ("val_car", "val_cdr"))
    string = function(flite, "val_string", c_char_p, c_void_p)

    def phones(word: str) -> tuple[str, ...]:
        out, entry = [], look_up(lex, word.encode(), None, None)
        while entry:
            out.append(string(first(entry)).decode())
            entry = rest(entry)
        return tuple(out)
    return phones


def scowl(*sizes: int) -> list[str]:
    lists = [Path(f"{SCOWL}/{dialect}-words.{size}") for size in sizes for dialect in ("english", "american")]
    return sorted({w for path in lists for w in path.read_text("latin-1").split() if re.fullmatch("[a-z]+", w)})


def sound(phones) -> tuple[str, ...]:
    "Two that sound alike are equal."
    return tuple(MERGED.get(p.rstrip("01"), p.rstrip("01")) for p in phones)


def clusters(phones) -> list[tuple[str, ...]]:
    return [tuple(run) for vowel, run in itertools.groupby(phones, lambda p: p[-1] in "01")]


def in_a_row(phones, n: int) -> list[tuple]:
    return list(zip(*(("#", *phones, "#")[i:] for i in range(n))))


class NonWords:
    def __init__(self, pronounced: list, words: set):
        self.words, self.twos = words, Counter(t for p in pronounced for t in in_a_row(p, 2))
        self.threes = {t for p in pronounced for t in in_a_row(p, 3)}
        self.parts = defaultdict(list)
        for part in sorted({part for p in pronounced for part in clusters(p)}):
            self.parts[self.place(part)].append(part)

    @staticmethod
    def place(part: tuple) -> tuple:
        "Parts of one kind: as many phones, consonants or a vowel of one stress."
        return len(part), part[0][-1] if part[0][-1] in "01" else ""

    def common(self, phones) -> float:
        return math.fsum(math.log(self.twos[t]) for t in in_a_row(phones, 2))

    def of(self, phones, rng: random.Random):
        "The non-word for a word, or None."
        parts, fits = clusters(phones), []
        may = [i for i, part in enumerate(parts) if self.place(part)[1] != "0"]  # an unstressed vowel is too weak to matter
        for _ in range(2000):
            new = list(parts)
            for at in rng.sample(may, min(len(may), max(1, round(len(parts) / 3)))):
                new[at] = rng.choice(self.parts[self.place(parts[at])])
            flat = tuple(itertools.chain(*new))
            if sound(flat) not in self.words and self.threes.issuperset(in_a_row(flat, 3)):
                fits.append(flat)
        return min(fits, key=lambda f: abs(self.common(f) - self.common(phones)), default=None)


def word_pairs(heard: Counter) -> list[dict]:
    phones, rng, rows = lexicon(), random.Random("words"), []
    common, known = scowl(10, 20), scowl(10, 20, 35, 40, 50, 55, 60, 70)
    make = NonWords([phones(w) for w in scowl(10, 20, 35)], {sound(phones(w)) for w in {*known, *heard}})
    fit = [w for w in common if len(w) > 3 and w not in "with from this that than them they were have will would".split()]
    for n, was_heard in itertools.product(LENGTHS, (True, False)):
        pool = [w for w in rng.sample(fit, len(fit)) if len(phones(w)) == n and (heard[w] > 0) == was_heard]
        both = ((w, other) for w in pool if (other := make.of(phones(w), rng)))
        for (word, other), voice in zip(both, VOICES * WORDS):
            rows.append(dict(kind="word", paradigm=f"{n} phones", voice=voice, heard=heard[word], real=word,
                             other=" ".join(other), phones=" ".join(phones(word))))
    gain = [make.common(r["phones"].split()) - make.common(r["other"].split()) for r in rows]
    print(f"the word has the commoner pairs of phones in {np.mean(np.sign(gain)) / 2 + .5:.1%}")
    return rows


# --- sound
def teach(voice: int, rows: list[dict]) -> dict[str, str]:
    "Give `voice` a name for every word and non-word, so that both are spoken from phones: phones -> name."
    syllables = ["".join(s) for s in itertools.product("bdfgklmnprstvz", "aeiou")]
    names = (f"no{a}{b}" for a, b in itertools.product(syllables, repeat=2))
    called = {p: next(names) for r in rows if r["kind"] == "word" for p in (r["phones"], r["other"])}
    with tempfile.NamedTemporaryFile("w") as f:
        f.writelines(f'"{name}" 0 : {p}\n' for p, name in called.items())
        f.flush()
        assert not function(flite, "flite_voice_add_lex_addenda", c_int, c_void_p, c_char_p)(voice, f.name.encode())
    return called


def speak(row: dict, side: str, voice: int, called: dict) -> np.ndarray:
    phones = row["other" if side == "other" else "phones"]
    x, segments = say(called[phones] if row["kind"] == "word" else row[side], voice)
    said = tuple(p.lower() for p, _, word in segments if word)
    assert row["kind"] != "word" or sound(said) == sound(phones.split()), (phones, said)
    return x * (0.6 / np.abs(x).max())


def main(folder: Path, out: Path, sounds: Path | None) -> None:
    text = " ".join(c.text.lower() for c in read_folder(folder) if not held_out(c.speaker))
    heard, tokens = Counter(re.findall(r"[a-z]+(?:'[a-z]+)?", text)), []
    rows = word_pairs(heard) + sentence_pairs(heard)
    encode = SemanticTokenizer.from_pretrained("speech").encode
    flite.flite_init()
    voices = {}
    for name in VOICES:
        library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1")
        voices[name] = function(library, f"register_cmu_us_{name}", c_void_p, c_char_p)(None)
        called = teach(voices[name], rows)
    for i, row in enumerate(rows):
        row["id"] = f"{i:04}"
        for side in "real", "other":
            x = speak(row, side, voices[row["voice"]], called)
            z = encode(torch.from_numpy(x).float()[None])[0].numpy().astype("<i2")
            row[f"frames_{side}"] = len(z)
            tokens.append(z)
            if sounds:
                sf.write(sounds / f"{row['id']}_{side}.flac", x, SR, subtype="PCM_16")
    (out / "pairs.i16").write_bytes(np.concatenate(tokens).tobytes())
    with open(out / "pairs.csv", "w", newline="", encoding="utf-8") as f:
        columns = "id kind paradigm voice heard real other phones frames_real frames_other".split()
        table = csv.DictWriter(f, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    print(Counter((r["kind"], r["voice"], r["heard"] > 0) for r in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sounds", type=Path)
    given = parser.parse_args()
    for d in filter(None, (given.out, given.sounds)):
        d.mkdir(parents=True, exist_ok=True)
    main(given.folder, given.out, given.sounds)

"""Make the synthetic phone yardstick that ships with audiolm-edu:  python make_yardstick.py OUT

Four voices of the speech synthesizer Flite (Debian package libflite1, which holds them) read the same sentences.
No person speaks here; in return the synthesizer knows when every phone begins and ends. In OUT (audiolm_edu/clips) it
writes synthetic/VOICE_NN.flac (16 kHz, mono, 16 bit) and synthetic/phones.csv, the table that `read_phones` takes, and
replaces the rows of kind synthetic-speech in clips.csv; run it again after make_clips.py, which writes that file anew.
Same package version, same clips. ATTRIBUTION.md beside them is written by hand. Needs apt-get install libflite1.

Times are the segment ends that `flite -psdur` prints, here read from the library, which also tells the words. Segments
hold for the sound of all four voices, except that kal16, a diphone voice, speaks only half of the last silence.
"""
import csv, ctypes, subprocess, sys  # noqa: E401
from ctypes import POINTER, c_char_p, c_float, c_int, c_short, c_void_p
from pathlib import Path

import numpy as np
import soundfile as sf

SR, KIND, LICENCE = 16000, "synthetic-speech", "CMU Flite licence"
VOICES = "kal16", "awb", "rms", "slt"
NAMES = {"pau": "SIL", "ax": "AH"}  # others: the same in capitals
# many phones between the same two others (K _ T: cat, cut, kit, cot; AH _ AE: the bat, cat, hat, mat), most of them
# twice or more, as ABX within a speaker asks for
SENTENCES = """
The cat sat on the mat and the bat sat on the hat.
A cat bit the bat and a bat bit the cat.
Cut the kite and put the kit on the cot.
The coat on the cot is cut.
The pot is hot but the pet is not in the pot.
Pat the pet and let the wet pet sit.
The bat hit the boat and the boat hit the boot.
The bait is bad and the net is wet.
A big pig and a thin pig dig a deep pit.
The mad man had a map, a cap and a mat.
The cap is red and the cab is red.
The sight of the light is the light of the night.
The cake at the lake is for the lake.
The big ship hit the tip of the ship.
The young king sang to the thin boy.
""".strip().splitlines()


class Wave(ctypes.Structure):
    _fields_ = [("type", c_char_p), *((name, c_int) for name in ("rate", "length", "channels")),
                ("samples", POINTER(c_short))]


def function(library: ctypes.CDLL, name: str, result, *arguments):
    f = getattr(library, name)
    f.restype, f.argtypes = result, arguments
    return f


libc, flite = ctypes.CDLL(None), ctypes.CDLL("libflite.so.1")
synth = function(flite, "flite_synth_text", c_void_p, c_char_p, c_void_p)
wave_of = function(flite, "utt_wave", POINTER(Wave), c_void_p)
relation = function(flite, "utt_relation", c_void_p, c_void_p, c_char_p)
first = function(flite, "relation_head", c_void_p, c_void_p)
following = function(flite, "item_next", c_void_p, c_void_p)
number = function(flite, "ffeature_float", c_float, c_void_p, c_char_p)
string = function(flite, "ffeature_string", c_char_p, c_void_p, c_char_p)
delete = function(flite, "delete_utterance", None, c_void_p)


def say(text: str, voice: int) -> tuple[np.ndarray, list[tuple[str, float, str]]]:
    """Samples, and (phone, its end in seconds, its word) of every segment."""
    libc.srand(1)  # three voices add noise from rand(); 1 is what a new process starts from
    spoken = synth(text.encode(), voice)
    wave = wave_of(spoken).contents
    assert (wave.rate, wave.channels) == (SR, 1)
    x, segments = np.ctypeslib.as_array(wave.samples, (wave.length,)) / 32768.0, []
    item = first(relation(spoken, b"Segment"))
    while item:
        name, word = (string(item, f).decode() for f in (b"name", b"R:SylStructure.parent.parent.name"))
        segments.append((NAMES.get(name, name.upper()), number(item, b"end"), "" if name == "pau" else word))
        item = following(item)
    delete(spoken)
    return x, segments


def main(out: Path) -> None:
    (out / "synthetic").mkdir(exist_ok=True)
    version = subprocess.check_output(["dpkg-query", "-Wf", "${Version}", "libflite1"], text=True)
    with open(out / "clips.csv", newline="", encoding="utf-8") as f:
        clips = [row for row in csv.reader(f) if row[2] != KIND]
    phones = [("path", "speaker", "start", "end", "phone", "word")]
    flite.flite_init()
    for name in VOICES:
        library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1")
        voice = function(library, f"register_cmu_us_{name}", c_void_p, c_char_p)(None)
        for n, text in enumerate(SENTENCES, 1):
            path, speaker = f"synthetic/{name}_{n:02}.flac", f"flite_{name}"
            x, segments = say(text, voice)
            *_, (last, end, _) = segments
            segments[-1] = last, len(x) / SR, ""
            late = segments[-2][1] + (end - segments[-2][1]) / (2 if name == "kal16" else 1) - len(x) / SR
            assert last == "SIL" and abs(late) < 0.02, (path, late)
            sf.write(out / path, x * (0.6 / np.abs(x).max()), SR, subtype="PCM_16")
            source = f"libflite1_{version}: voice cmu_us_{name}"
            clips.append((path, speaker, KIND, "en", f"{len(x) / SR:.2f}", text, LICENCE, source))
            starts = [0.0] + [end for _, end, _ in segments]
            phones += [(path, speaker, f"{a:.3f}", f"{b:.3f}", p, w) for a, (p, b, w) in zip(starts, segments)]
    for table, rows in (out / "clips.csv", clips), (out / "synthetic/phones.csv", phones):
        with open(table, "w", newline="", encoding="utf-8") as f:
            csv.writer(f, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

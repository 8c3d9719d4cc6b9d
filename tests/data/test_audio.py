"""Sound files of any format: through libsndfile, else through ffmpeg; the length is that of the content."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from audio_files import tone

from audioclf_lib._support.errors import InputError
from audioclf_lib.data.audio import BLOCK_FRAMES, decoded_length, measure_sound, read_clip

CASES = Path(__file__).with_name("cases") / "audio"
PHONE = CASES / "phone.m4a"


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    if found := shutil.which("ffmpeg"):
        return found
    return str(pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe())


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)


# Formats, and how ffmpeg writes them.
FORMATS = {
    "m4a": [],
    "mp4": [],
    "mka": ["-c:a", "aac"],
    "aac": [],
    "wma": [],
    "webm": ["-c:a", "libopus"],
    "3gp": ["-ar", "8000", "-c:a", "aac"],
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_of_phones_and_browsers_are_read_through_ffmpeg(ffmpeg: str, tmp_path: Path, suffix: str) -> None:
    sf.write(tmp_path / "tone.wav", tone(2.0, 44_100), 44_100)
    path = tmp_path / f"a recording-{suffix}.{suffix.upper()}"
    subprocess.run([ffmpeg, "-v", "error", "-i", tmp_path / "tone.wav", *FORMATS[suffix], path], check=True)
    assert decoded_length(path) / 16_000 == pytest.approx(2.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(read_clip(path, 32_000)))
    assert np.argmax(spectrum) / 2 == pytest.approx(440, abs=1)


def test_a_phone_recording_has_its_two_seconds_also_under_a_wrong_name(ffmpeg: str, tmp_path: Path) -> None:
    for path in (PHONE, Path(shutil.copy(PHONE, tmp_path / "-phone: 1.mp3"))):
        # AAC packs 1,024 samples together; how much of the last pack is cut off differs between versions of ffmpeg.
        assert decoded_length(path) == pytest.approx(32_000, abs=1_024)


def test_what_ffmpeg_cannot_read_either_is_one_sentence(ffmpeg: str, tmp_path: Path) -> None:
    (tmp_path / "half.m4a").write_bytes(PHONE.read_bytes()[:3_000])
    with pytest.raises(InputError, match=r"half\.m4a cannot be read by ffmpeg \(.*\); export it anew or leave it out"):
        read_clip(tmp_path / "half.m4a", 16_000)


def test_a_playlist_does_not_lead_ffmpeg_to_other_files(ffmpeg: str, tmp_path: Path) -> None:
    sf.write(tmp_path / "secret.wav", tone(), 16_000)
    for text in ("#EXTM3U\n#EXTINF:1,\nsecret.wav\n", "ffconcat version 1.0\nfile secret.wav\n"):
        (tmp_path / "list.m4a").write_text(text)
        with pytest.raises(InputError, match=r"list\.m4a cannot be read by ffmpeg"):
            read_clip(tmp_path / "list.m4a", 16_000)


@pytest.mark.usefixtures("no_ffmpeg")
def test_without_ffmpeg_one_sentence_says_how_to_install_it_or_convert_the_file() -> None:
    with pytest.raises(InputError, match=r"phone\.m4a is read by ffmpeg, .* `pip install imageio-ffmpeg`") as caught:
        decoded_length(PHONE)
    assert str(caught.value).endswith("`ffmpeg -i phone.m4a phone.wav`")


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".au", ".caf", ".w64", ".opus", ".mp3"])
def test_what_libsndfile_reads_needs_no_ffmpeg(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone{suffix}"
    sf.write(path, tone(2.0, 48_000), 48_000, **({"format": "OGG", "subtype": "OPUS"} if suffix == ".opus" else {}))
    assert decoded_length(path) == 32_000


def with_header(content: bytes, riff: int, data: int, magic: bytes = b"RIFF") -> bytes:
    """A WAV file of 44 bytes of header with other sizes in it."""
    return magic + struct.pack("<I", riff) + content[8:40] + struct.pack("<I", data) + content[44:]


@pytest.mark.parametrize(
    "sizes", [(0, 0), (8, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF, 0x7FFFFFDB), (0, 0xFFFFFFFF), (36, 0)]
)
def test_wav_headers_as_recorders_that_stream_leave_them(tmp_path: Path, sizes: tuple[int, int]) -> None:
    path = tmp_path / "tone.wav"
    sf.write(path, tone(), 16_000)
    whole = read_clip(path, 16_000)
    path.write_bytes(with_header(path.read_bytes(), *sizes))
    assert decoded_length(path) == 16_000
    np.testing.assert_array_equal(read_clip(path, 16_000), whole)
    assert path.read_bytes()[4:8] == struct.pack("<I", sizes[0]), "the file itself is not repaired"


def test_a_wav_file_of_a_header_alone_stays_empty(tmp_path: Path) -> None:
    sf.write(tmp_path / "tone.wav", tone(0), 16_000)
    with pytest.raises(InputError, match=r"tone\.wav holds no samples"):
        read_clip(tmp_path / "tone.wav", 16_000)


def test_an_mp3_file_without_a_xing_header_that_breaks_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    content = (CASES / "vbr-without-xing.mp3").read_bytes()
    path = tmp_path / "half.mp3"
    path.write_bytes(content[: len(content) // 2])
    assert decoded_length(path) / 16_000 == pytest.approx(5, abs=0.2)
    with pytest.warns(UserWarning, match=r"half\.mp3 is damaged: only .* samples can be read"):
        samples = read_clip(path, 80_000)
    assert np.abs(samples[70_000:76_000]).max() > 0.05


@pytest.mark.parametrize("right", [-1.0, -0.9])
def test_of_channels_that_cancel_each_other_out_the_loudest_is_taken(tmp_path: Path, right: float) -> None:
    path, left = tmp_path / "stereo.wav", tone(frequency=300)
    sf.write(path, np.stack([left, right * left], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_clip(path, 16_000), left, atol=1e-6)
    assert measure_sound(path)["opposed"]


def test_unrelated_channels_are_averaged_however_many_there_are(tmp_path: Path) -> None:
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (16_000, 16)).astype(np.float32)
    sf.write(tmp_path / "many.wav", channels, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_clip(tmp_path / "many.wav", 16_000), channels.mean(axis=1), atol=1e-6)
    sf.write(tmp_path / "one.wav", channels * np.eye(16, dtype=np.float32)[0], 16_000, subtype="FLOAT")
    assert not measure_sound(tmp_path / "one.wav")["opposed"]


def test_a_long_sound_is_measured_to_its_end(tmp_path: Path) -> None:
    samples = tone(2 * BLOCK_FRAMES / 16_000 + 1, level=0.1)
    samples[-1] = 0.7
    sf.write(tmp_path / "long.wav", samples, 16_000, subtype="FLOAT")
    facts = measure_sound(tmp_path / "long.wav")
    assert facts["seconds"] == len(samples) / 16_000
    assert facts["peak"] == pytest.approx(0.7)


@pytest.mark.parametrize(("gain", "clipped"), [(0.9, False), (1.0, False), (1.5, True), (10.0, True)])
def test_a_clipped_sound_stays_at_full_scale_and_a_loud_one_passes(tmp_path: Path, gain: float, clipped: bool) -> None:
    samples = np.clip(gain * tone(level=1.0), -1, 1)
    sf.write(tmp_path / "tone.wav", samples, 16_000)
    assert (measure_sound(tmp_path / "tone.wav")["clipped"] > 0.001) == clipped

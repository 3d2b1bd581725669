"""Calibration data for models of the zoo: `python benchmarks/zoo_data.py ZOO OUT [NAME...]` (see `zoo_fetch.py`).

Each function makes the feeds of one model as the package that carries it does, in a layout that onnxcomp reads:
`data.npz` (sample i is `a[i:i+1]`, labels in `y`), or one whole feed in each `.npz`. Photos come from the folder
`$ONNXCOMP_ASSETS/imagenet224` (without it all backgrounds are plain), Latin glyphs from Debian's `fonts-dejavu`,
Chinese ones from `fonts-wqy-microhei` (without it there are none), speech from `espeak-ng`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONTS = Path("/usr/share/fonts/truetype")
SENTENCES = """Invoice total of the order: delivered on receipt, please keep this page. Speed limit and open hours may
change without notice; model X-200 weighs 3.75 kg (net). Tel +49 30 1234567, mail@example.org, https://example.org/a?b=1
No. 0815-4711 EUR 1,299.00 25% off! Quick brown foxes jump over lazy dogs & THE END of chapter VII, 12:45 h"""
LATIN = SENTENCES.split()
CHINESE = "产品名称价格数量合计日期时间地址电话北京上海中国有限公司营业执照欢迎光临谢谢惠顾请勿吸烟安全出口注意事项"
PAGE_SIZES = ((480, 640), (640, 480), (640, 640))  # height, width: multiples of 32, as the detector needs
RATE, CHUNK, CONTEXT = 16_000, 512, 64  # of Silero VAD, in Hz and samples

Feed = dict[str, npt.NDArray[np.generic]]


def write_feeds(folder: Path, feeds: Iterable[Feed]) -> None:
    for index, feed in enumerate(feeds):
        np.savez_compressed(folder / f"{index:04d}.npz", **feed)  # type: ignore[arg-type]  # numpy's own keyword is not a key


def background(height: int, width: int, rng: np.random.Generator) -> Image.Image:
    """Half of a photo for every second picture, where there are photos; else one colour with noise."""
    photos = sorted(Path(os.environ.get("ONNXCOMP_ASSETS", "/nowhere"), "imagenet224").glob("*.jpg"))
    if photos and rng.random() < 0.5:
        photo = Image.open(photos[rng.integers(len(photos))]).convert("RGB")
        return photo.crop((0, 0, photo.width // 2, photo.height // 2)).resize((width, height))
    plain = rng.integers(0, 256, size=3) + rng.normal(0, rng.uniform(0, 8), size=(height, width, 3))
    return Image.fromarray(plain.clip(0, 255).astype(np.uint8))


def phrase(words: int, size: int, rng: np.random.Generator) -> tuple[str, ImageFont.FreeTypeFont]:
    """A text and a font that has its glyphs: Latin words, or Chinese characters in one phrase of three."""
    chinese, latin = sorted(FONTS.glob("wqy/*.ttc")), sorted(FONTS.glob("dejavu/*.ttf"))
    if chinese and rng.random() < 1 / 3:
        return "".join(rng.choice(list(CHINESE), size=2 * words)), ImageFont.truetype(chinese[0], size)
    return " ".join(rng.choice(LATIN, size=words)), ImageFont.truetype(latin[rng.integers(len(latin))], size)


def ink(image: Image.Image, rng: np.random.Generator) -> tuple[int, ...]:
    """Dark on a light background, light on a dark one."""
    darkest = 0 if np.asarray(image.convert("L")).mean() > 127 else 185
    return tuple(rng.integers(darkest, darkest + 70, size=3).tolist())


def text_line(rng: np.random.Generator) -> tuple[Image.Image, str]:
    """A line of text, cropped as a detector crops it: a few pixels of margin around the glyphs."""
    text, font = phrase(int(rng.integers(1, 5)), int(rng.integers(18, 44)), rng)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    margin = int(rng.integers(2, 7))
    image = background(bottom - top + 2 * margin, right - left + 2 * margin, rng)
    ImageDraw.Draw(image).text((margin - left, margin - top), text, font=font, fill=ink(image, rng))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2))), text


def page(height: int, width: int, rng: np.random.Generator) -> Image.Image:
    """Lines of several sizes at random places, slightly rotated as a whole."""
    image = background(height, width, rng)
    y = int(rng.integers(5, 60))
    while y < height - 30:
        size = int(rng.integers(12, 40))
        text, font = phrase(int(rng.integers(1, 6)), size, rng)
        ImageDraw.Draw(image).text((int(rng.integers(0, width // 2)), y), text, font=font, fill=ink(image, rng))
        y += int(size * rng.uniform(1.1, 3))
    turned = image.rotate(rng.uniform(-4, 4), Image.Resampling.BILINEAR, fillcolor=(127, 127, 127))
    return turned.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))


def to_bgr(image: Image.Image) -> npt.NDArray[np.float32]:
    """[3, height, width] in -1..1, blue first: what `rapidocr_onnxruntime` feeds to all three models."""
    return np.asarray(image, np.float32)[..., ::-1].transpose(2, 0, 1) / 127.5 - 1


def padded(image: Image.Image, narrowest: int, widest: int) -> npt.NDArray[np.float32]:
    """[3, 48, width]: `image` scaled to 48 rows, zeros to the right up to a multiple of 32 (`resize_norm_img`)."""
    needed = -(-48 * image.width // image.height)
    width = min(max(narrowest, -(-needed // 32) * 32), widest)
    fitted = to_bgr(image.resize((min(needed, width), 48), Image.Resampling.BILINEAR))
    return np.pad(fitted, ((0, 0), (0, 0), (0, width - fitted.shape[2])))


def ppocr_det(zoo: Path, out: Path) -> None:
    """64 pages `x [1, 3, height, width]` of three sizes."""
    rng = np.random.default_rng(0)
    write_feeds(out, ({"x": to_bgr(page(*PAGE_SIZES[i % 3], rng))[None]} for i in range(64)))


def ppocr_rec(zoo: Path, out: Path) -> None:
    """64 lines `x [1, 3, 48, width]`, as wide as each needs in steps of 32 from 160 to 480; texts beside the folder."""
    rng = np.random.default_rng(1)
    lines = [text_line(rng) for _ in range(64)]
    write_feeds(out, ({"x": padded(image, 160, 480)[None]} for image, _ in lines))
    out.with_suffix(".texts.json").write_text(json.dumps([text for _, text in lines], ensure_ascii=False), "utf-8")


def ppocr_cls(zoo: Path, out: Path) -> None:
    """64 lines `x [64, 3, 48, 192]`, every second one upside down: `y` is 0 for upright, 1 for turned."""
    rng = np.random.default_rng(2)
    labels = np.arange(64) % 2
    lines = [padded(text_line(rng)[0].rotate(180 * int(turned)), 192, 192) for turned in labels]
    np.savez_compressed(out / "data.npz", x=np.stack(lines), y=labels)


def magika(zoo: Path, out: Path) -> None:
    """200 files of `/usr`, `bytes [200, 2048]`: as `Magika._extract_features_from_seekable`.

    `y` is the type that the suffix of the file stands for (only suffixes of one type); at most eight files of a type.
    """
    config = json.loads(next((zoo / "magika").glob("*config.min.json")).read_text())
    types = json.loads(next((zoo / "magika").glob("*content_types_kb.min.json")).read_text())
    classes: dict[str, list[int]] = {}
    for index, name in enumerate(config["target_labels_space"]):
        for suffix in types[name]["extensions"]:
            classes.setdefault(f".{suffix}", []).append(index)
    known = {suffix: indices[0] for suffix, indices in classes.items() if len(indices) == 1}
    files = sorted(path for path in Path("/usr").rglob("*") if path.suffix in known and path.is_file())
    rows: list[npt.NDArray[np.int32]] = []
    labels: list[int] = []
    for pick in np.random.default_rng(3).permutation(len(files)):
        label = known[files[pick].suffix]
        if len(rows) == 200 or labels.count(label) == 8 or files[pick].stat().st_size < 64:
            continue
        content = files[pick].read_bytes()
        first, last = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
        row = np.full(2048, config["padding_token"], np.int32)
        row[: len(first)], row[2048 - len(last) :] = list(first), list(last)
        rows.append(row)
        labels.append(label)
    np.savez_compressed(out / "data.npz", bytes=np.stack(rows), y=np.array(labels))


def spoken(text: str, voice: str, speed: int) -> npt.NDArray[np.float32]:
    """`espeak-ng` reads `text` aloud at `speed` words a minute: samples in -1..1 at 16 kHz."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "--stdout", text]
    wav = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.int16)
    sound = wav[22:] / 32768  # past the header of 44 bytes: 22,050 samples a second
    times = np.arange(0, len(sound), 22_050 / RATE)
    return np.asarray(np.interp(times, np.arange(len(sound)), sound), np.float32)


def conversation(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Sentences by several voices at several volumes, with pauses between them, over a noise that never stops."""
    parts: list[npt.NDArray[np.float32]] = []
    for voice in ("en-us", "en-gb+f3", "de+m3", "fr+f2", "es+m1", "it+f4"):
        sentence = spoken(" ".join(rng.choice(LATIN, size=10)), voice, int(rng.integers(120, 200)))
        parts += [sentence * np.float32(rng.uniform(0.2, 1)), np.zeros(int(rng.uniform(1, 4) * RATE), np.float32)]
    sound = np.concatenate(parts)
    return sound + rng.normal(0, 0.003, sound.shape).astype(np.float32)


def silero(zoo: Path, out: Path) -> None:
    """100 feeds `input [1, 64 + 512], state [2, 1, 128], sr []`, drawn from one run that carries its state."""
    session = onnxruntime.InferenceSession(zoo / "silero-vad" / "silero_vad.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(4)
    sound = np.concatenate([np.zeros(CONTEXT, np.float32), conversation(rng)])
    state, feeds = np.zeros((2, 1, 128), np.float32), []
    for start in range(0, len(sound) - CONTEXT - CHUNK, CHUNK):
        chunk = sound[None, start : start + CONTEXT + CHUNK]
        feeds.append({"input": chunk, "state": state, "sr": np.array(RATE)})
        state = session.run(["stateN"], feeds[-1])[0]
    write_feeds(out, (feeds[pick] for pick in rng.permutation(len(feeds))[:100]))


DATASETS = {make.__name__: make for make in (ppocr_det, ppocr_rec, ppocr_cls, magika, silero)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make calibration data for models of the zoo.")
    parser.add_argument("zoo", type=Path, help="the folder that zoo_fetch.py filled")
    parser.add_argument("out", type=Path, help="each data set becomes a folder in it")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DATASETS)} (default: all)")
    args = parser.parse_args()
    for name in args.names or DATASETS:
        (args.out / name).mkdir(parents=True, exist_ok=True)
        try:
            DATASETS[name](args.zoo, args.out / name)
            print(args.out / name)
        except FileNotFoundError as error:
            print(f"{name} not made: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()

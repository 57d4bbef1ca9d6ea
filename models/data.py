"""The training data: digits that scikit-learn bundles, and three synthetic sets drawn from a seed."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

KEYWORDS = ("silence", "rising", "falling", "low", "high", "two tones", "warble", "clicks")


def digits(seed):
    """8x8 gray images of handwritten digits, 0 to 1: (x, y) for training and for testing."""
    bunch = load_digits()
    x = (bunch.images / 16).astype(np.float32)[..., None]
    a, b, c, d = train_test_split(x, bunch.target, test_size=400, random_state=seed, stratify=bunch.target)
    return (a, c), (b, d)


def keywords(rng, count):
    """Spectrograms of 49 frames and 10 bands, 0 to 1, of eight kinds of sound in noise."""
    frames, bands = 49, 10
    x = np.zeros((count, frames, bands), np.float32)
    y = rng.integers(0, len(KEYWORDS), count)
    band = np.arange(bands)
    for i, kind in enumerate(y):
        length = int(rng.integers(18, 34))
        start = int(rng.integers(0, frames - length))
        t = np.linspace(0, 1, length)
        loud = rng.uniform(0.3, 0.9)
        low, high = rng.uniform(0.5, 2.5), rng.uniform(6.5, 8.5)
        pitch = {
            1: low + (high - low) * t,
            2: high - (high - low) * t,
            3: np.full(length, low),
            4: np.full(length, high),
            5: np.full(length, low),
            6: (low + high) / 2 + 2.5 * np.sin(2 * np.pi * t * rng.uniform(2, 4)),
        }.get(int(kind))
        if pitch is not None:
            x[i, start : start + length] = loud * np.exp(-((band - pitch[:, None]) ** 2) / 1.2)
        if kind == 5:
            x[i, start : start + length] += loud * np.exp(-((band - high) ** 2) / 1.2)
        if kind == 7:
            x[i, start : start + length : int(rng.integers(4, 7))] = loud * rng.uniform(0.6, 1)
    x += rng.gamma(1.2, rng.uniform(0.02, 0.2, (count, 1, 1)), x.shape)
    return np.clip(x, 0, 1).astype(np.float32)[..., None], y


def shapes(rng, count):
    """48x48 gray images, 0 to 1: a filled disc, square or triangle somewhere (class 1), or only lines (class 0)."""
    size = 48
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float32)
    x, y = np.zeros((count, size, size), np.float32), rng.integers(0, 2, count)
    for i, wanted in enumerate(y):
        image = rng.uniform(0.2, 0.8) + rng.uniform(-0.15, 0.15) * (xx / size) + rng.uniform(-0.15, 0.15) * (yy / size)
        for _ in range(int(rng.integers(1, 5))):  # clutter in both classes
            angle, offset = rng.uniform(0, np.pi), rng.uniform(-20, 20)
            away = np.abs((xx - 24) * np.cos(angle) + (yy - 24) * np.sin(angle) - offset)
            image = np.where(away < rng.uniform(0.5, 1.5), rng.uniform(0, 1), image)
        if wanted:
            cx, cy, r = rng.uniform(12, 36), rng.uniform(12, 36), rng.uniform(6, 11)
            kind, turn = rng.integers(3), rng.uniform(0, np.pi)
            u = (xx - cx) * np.cos(turn) + (yy - cy) * np.sin(turn)
            v = (yy - cy) * np.cos(turn) - (xx - cx) * np.sin(turn)
            inside = (
                u * u + v * v < r * r,
                np.maximum(np.abs(u), np.abs(v)) < 0.9 * r,
                (v > -0.5 * r) & (v < r - 1.7 * np.abs(u)),
            )[kind]
            image = np.where(inside, np.clip(image + rng.choice([-1, 1]) * rng.uniform(0.35, 0.6), 0, 1), image)
        x[i] = image + rng.normal(0, 0.04, image.shape)
    return np.clip(x, 0, 1).astype(np.float32)[..., None], y


def vibration(rng, count, faulty=False):
    """Spectra of 64 bins, 0 to 1, of a machine that turns at a varying speed; a worn bearing adds side bands."""
    bins = np.arange(64)
    x = np.zeros((count, 64), np.float32)
    for i in range(count):
        base = rng.uniform(5.5, 7.5)
        for k in range(1, 8):
            x[i] += rng.uniform(0.5, 0.8) / k**0.6 * np.exp(-((bins - base * k) ** 2) / 1.5)
        if faulty:
            centre, apart = rng.uniform(25, 55), rng.uniform(2.2, 3.2)
            for k in range(-2, 3):
                x[i] += rng.uniform(0.2, 0.45) * np.exp(-((bins - centre - apart * k) ** 2) / 0.8)
    x += rng.gamma(1.5, 0.02, x.shape)
    return np.clip(x, 0, 1).astype(np.float32)

"""What an operator's generator gives, how it draws random values, and the list of all generators."""

import zlib
from dataclasses import dataclass

import numpy as np

from .model import TYPES, Model, Quant

FLOAT_TOLERANCE = 1e-5
RANGES = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "bool": (0, 1),
}


@dataclass
class Case:
    """One model with inputs. Axes of an input array: sample and shape, or sequence, step and shape if `stateful`."""

    model: Model
    inputs: list
    parameters: dict
    stateful: bool = False
    tolerance: float = None  # None: 0 for integers, FLOAT_TOLERANCE for floats
    steps: int = 0  # by how much an integer output may differ


@dataclass
class Variant:
    """One operator with one element type (or pair of types)."""

    operator: str
    dtype: str
    oracle: str  # "tflm" or "litert"
    required: bool  # False: beyond what the project promises; a compiler may refuse it
    generate: object

    @property
    def stem(self):
        return f"{self.operator.lower()}_{self.dtype}"


VARIANTS = []


def operator(name, tflm="", litert="", extra="", tflm_extra=""):
    """Registers a generator `f(draw, dtype) -> Case` for an operator and its element types (names with blanks between).

    `tflm`: the oracle is TensorFlow Lite Micro and must accept; `litert`: LiteRT's reference kernels, for what TFLM
    refuses; `tflm_extra`, `extra`: the same two, for types that nobody promised.
    """

    def register(function):
        for dtypes, oracle, required in (
            (tflm, "tflm", True),
            (tflm_extra, "tflm", False),
            (litert, "litert", True),
            (extra, "litert", False),
        ):
            for dtype in dtypes.split():
                VARIANTS.append(Variant(name, dtype, oracle, required, function))
        return function

    return register


class Draw:
    """Seeded random choices for one case."""

    def __init__(self, seed, stem, index, tiny):
        self.stem = zlib.crc32(stem.encode())
        self.seed = seed
        self.index = index
        self.tiny = tiny  # small shapes, one or two samples: for the set kept in the repository
        self.cycles = 0
        self.rng = np.random.default_rng([seed, self.stem, index])

    def cycle(self, options):
        """A choice such that as many consecutive cases as there are options cover all of them."""
        options = list(options)
        self.cycles += 1
        block = self.index // len(options)
        order = np.random.default_rng([self.seed, self.stem, self.cycles, block]).permutation(len(options))
        return options[order[self.index % len(options)]]

    def pick(self, options):
        options = list(options)
        return options[int(self.rng.integers(len(options)))]

    def int(self, low, high):
        """Both ends included."""
        return int(self.rng.integers(low, high + 1))

    def size(self, low, high, tiny_high=None):
        """A dimension; smaller in the tiny set."""
        if self.tiny:
            high = min(high, tiny_high if tiny_high is not None else max(low, 4))
        return self.int(low, high)

    def chance(self, probability):
        return bool(self.rng.random() < probability)

    def real(self, low, high):
        return float(self.rng.uniform(low, high))

    def log_real(self, low, high):
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def permutation(self, n):
        return [int(i) for i in self.rng.permutation(n)]

    def shape(self, low_rank, high_rank, high=6, tiny_high=3):
        return [self.size(1, high, tiny_high) for _ in range(self.int(low_rank, high_rank))]

    def samples(self):
        return 1 if self.tiny else 2

    def scale(self, low=1e-3, high=0.5):
        if self.chance(0.15):
            return float(np.float32(2.0 ** round(np.log2(self.log_real(low, high)))))
        return float(np.float32(self.log_real(low, high)))

    def zero_point(self, dtype):
        low, high = RANGES[dtype]
        if dtype == "int16":
            return 0
        middle = (low + high + 1) // 2
        kind = self.rng.random()
        if kind < 0.15:
            return self.pick([low, high, middle])
        return self.int(low, high) if kind < 0.5 else middle + self.int(-40, 40)

    def quant(self, dtype, low=1e-3, high=0.5):
        """Random per-tensor quantization, or None for a type that carries plain numbers."""
        return Quant(self.scale(low, high), self.zero_point(dtype)) if dtype in ("int8", "uint8", "int16") else None

    def values(self, shape, dtype, bound=None, edge=None):
        """Random values: the full range (floats: normal) or, for some cases, only values at the ends of the range."""
        shape = [int(d) for d in shape]
        kind = TYPES[dtype][1]
        if dtype in ("float32", "float16"):
            spread = self.pick([1.0, 1.0, 4.0]) if bound is None else bound / 3
            values = self.rng.normal(0, spread, shape)
            return np.asarray(values if bound is None else np.clip(values, -bound, bound), kind)
        low, high = RANGES[dtype]
        if bound is not None:
            low, high = max(low, -bound), min(high, bound)
        if edge or (edge is None and self.chance(0.15)):
            pool = np.array([low, low + 1, 0 if low < 0 else low, high - 1, high], kind)
            return pool[self.rng.integers(0, len(pool), shape)]
        return self.rng.integers(low, high, shape, kind, endpoint=True)

    def inputs(self, shape, dtype, **options):
        """Samples of one model input: the first axis is the sample."""
        return self.values([self.samples(), *shape], dtype, **options)

    def multiplier(self, bound, output_range=128):
        """A rescaling factor for accumulators up to `bound` that cannot overflow 32 bits, its extremes included."""
        bound = max(float(bound), 1.0)
        largest = 2.0**30 / bound
        kind = self.cycle(["typical", "power", "typical", "typical", "near power", "typical", "extreme"])
        if kind == "extreme":
            kind = self.pick(["tiny", "large", "nothing"])
        typical = self.log_real(0.3, 8) * output_range / bound
        if kind == "tiny":
            factor = typical * 2.0 ** -self.real(2, 20)
        elif kind == "nothing":
            factor = 2.0 ** -self.real(31, 40)
        elif kind == "large":
            factor = typical * 2.0 ** self.real(1, 20)
        elif kind == "power":
            factor = 2.0 ** round(np.log2(typical))
        elif kind == "near power":
            factor = 2.0 ** round(np.log2(typical)) * (1 - 2.0**-24)
        else:
            factor = typical
        return min(factor, largest)


def same_scale(factor, product):
    """The output scale that makes `product / scale` the wanted factor, as float32."""
    return float(np.float32(product / factor))

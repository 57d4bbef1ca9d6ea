//! From a tensor's bytes to counts.

use dunlin_artifact::baseline::{Bins, Categories, Category, Feature, Numeric, Part};
use dunlin_artifact::{DType, Tensor};

use crate::{Scale, Totals, Window, counter};

/// Hands out the real values of `part` in a tensor's bytes, exactly those that a monitor counts: dequantized, and
/// for [`Part::Max`] and [`Part::ArgMax`] one value, not a number when there is none.
pub fn visit_values(tensor: &Tensor, part: Part, bytes: &[u8], mut visit: impl FnMut(f32)) {
    let elements = Elements::of(tensor, part, bytes);
    match part {
        Part::Elements { .. } | Part::Element(_) => {
            elements.reals(visit);
        }
        Part::Max => visit(elements.largest().map_or(f32::NAN, |(_, largest)| largest)),
        Part::ArgMax => visit(elements.largest().map_or(f32::NAN, |(position, _)| position as f32)),
    }
}

/// Hands out the stored integers of `part` in a tensor's bytes, exactly those that a monitor counts as categories.
pub fn visit_integers(tensor: &Tensor, part: Part, bytes: &[u8], visit: impl FnMut(i64)) {
    Elements::of(tensor, part, bytes).integers(visit);
}

impl<const FEATURES: usize, const COUNTERS: usize> Window<FEATURES, COUNTERS> {
    /// Counts the values of one feature in its tensor's bytes. Elements that the bytes are too short for count as
    /// missing.
    pub(crate) fn observe_tensor(
        &mut self,
        index: usize,
        feature: &Feature<'_>,
        tensor: &Tensor,
        bytes: &[u8],
    ) {
        let Some((counters, slot, saturated)) = self.parts(index) else { return };
        let elements = Elements::of(tensor, feature.part, bytes);
        let mut tally = Tally { counters, totals: Totals::EMPTY, saturated: false };
        match (&feature.bins, feature.part) {
            (Bins::Numeric(numeric), Part::Max) => {
                let largest = elements.largest().map_or(f32::NAN, |(_, largest)| largest);
                tally.real(numeric, largest);
            }
            (Bins::Numeric(numeric), _) => {
                let seen = elements.reals(|value| tally.real(numeric, value));
                tally.missing(elements.count.saturating_sub(seen));
            }
            (Bins::Classes(_), _) => match elements.largest() {
                Some((class, _)) => tally.count(class),
                None => tally.missing(1),
            },
            (Bins::Categories(categories), _) => {
                let seen = elements.integers(|value| tally.category(categories, Category::Integer(value)));
                tally.missing(elements.count.saturating_sub(seen));
            }
        }
        *saturated |= tally.saturated;
        slot.add(&tally.totals, saturated);
    }

    /// Counts one value that the application brings. `false` when the feature does not count such values.
    pub(crate) fn observe_one(&mut self, index: usize, feature: &Feature<'_>, value: Value<'_>) -> bool {
        let Some((counters, slot, saturated)) = self.parts(index) else { return false };
        let mut tally = Tally { counters, totals: Totals::EMPTY, saturated: false };
        match (&feature.bins, value) {
            (Bins::Numeric(numeric), Value::Real(value)) => tally.real(numeric, value),
            (Bins::Categories(categories), Value::Category(category)) => tally.category(categories, category),
            (_, Value::Missing) => tally.missing(1),
            _ => return false,
        }
        *saturated |= tally.saturated;
        slot.add(&tally.totals, saturated);
        true
    }
}

/// A value that the application brings.
pub(crate) enum Value<'v> {
    Real(f32),
    Category(Category<'v>),
    Missing,
}

/// What one observation adds to a feature.
struct Tally<'w> {
    counters: &'w mut [u32],
    totals: Totals,
    saturated: bool,
}

impl Tally<'_> {
    fn real(&mut self, numeric: &Numeric<'_>, value: f32) {
        if value.is_nan() {
            return self.missing(1);
        }
        self.count(numeric.edges.bin(value));
        let fixed = i64::from(Scale::of(numeric).fixed(value));
        self.totals.min = self.totals.min.min(value);
        self.totals.max = self.totals.max.max(value);
        self.totals.sum = self.totals.sum.saturating_add(fixed);
        self.totals.squares = self.totals.squares.saturating_add(u128::from((fixed * fixed).unsigned_abs()));
    }

    fn category(&mut self, categories: &Categories<'_>, category: Category<'_>) {
        self.count(categories.counter(category));
    }

    fn count(&mut self, counter: usize) {
        if let Some(count) = self.counters.get_mut(counter) {
            counter::add(count, 1, &mut self.saturated);
        }
    }

    fn missing(&mut self, values: usize) {
        let values = u32::try_from(values).unwrap_or(u32::MAX);
        counter::add(&mut self.totals.missing, values, &mut self.saturated);
    }
}

/// Some elements of a tensor: `count` from `first` on, `stride` apart.
struct Elements<'a> {
    tensor: &'a Tensor,
    bytes: &'a [u8],
    first: usize,
    stride: usize,
    count: usize,
}

impl<'a> Elements<'a> {
    /// The elements that a part looks at.
    fn of(tensor: &'a Tensor, part: Part, bytes: &'a [u8]) -> Self {
        let (first, stride, count) = match part {
            Part::Elements { stride } => {
                let stride = (stride as usize).max(1);
                (0, stride, tensor.elements().div_ceil(stride))
            }
            Part::Element(element) => (element as usize, 1, 1),
            Part::Max | Part::ArgMax => (0, 1, tensor.elements()),
        };
        Elements { tensor, bytes, first, stride, count }
    }

    /// Hands out the elements' real values; returns how many there were.
    fn reals(&self, mut visit: impl FnMut(f32)) -> usize {
        let (scale, zero) = match self.tensor.scale {
            0.0 => (1.0, 0),
            scale => (scale, self.tensor.zero_point),
        };
        // Narrow types stay in 32 bits, which small processors convert much faster.
        let narrow = |stored: i32| stored.wrapping_sub(zero) as f32 * scale;
        let wide = |stored: i64| stored.wrapping_sub(i64::from(zero)) as f32 * scale;
        match self.tensor.dtype {
            DType::I8 => self.visit(|bytes| visit(narrow(i8::from_le_bytes(bytes).into()))),
            DType::U8 => self.visit(|bytes| visit(narrow(u8::from_le_bytes(bytes).into()))),
            DType::Bool => self.visit(|[byte]| visit(f32::from(u8::from(byte != 0)))),
            DType::I16 => self.visit(|bytes| visit(narrow(i16::from_le_bytes(bytes).into()))),
            DType::I32 => self.visit(|bytes| visit(wide(i32::from_le_bytes(bytes).into()))),
            DType::U32 => self.visit(|bytes| visit(wide(u32::from_le_bytes(bytes).into()))),
            DType::I64 => self.visit(|bytes| visit(wide(i64::from_le_bytes(bytes)))),
            DType::U64 => self.visit(|bytes| visit(u64::from_le_bytes(bytes) as f32)),
            DType::F32 => self.visit(|bytes| visit(f32::from_le_bytes(bytes))),
            // Constants only; a baseline with such an input or output is refused.
            DType::F16 => 0,
        }
    }

    /// Hands out the elements' stored integers; returns how many there were.
    fn integers(&self, mut visit: impl FnMut(i64)) -> usize {
        match self.tensor.dtype {
            DType::I8 => self.visit(|bytes| visit(i8::from_le_bytes(bytes).into())),
            DType::U8 | DType::Bool => self.visit(|bytes| visit(u8::from_le_bytes(bytes).into())),
            DType::I16 => self.visit(|bytes| visit(i16::from_le_bytes(bytes).into())),
            DType::I32 => self.visit(|bytes| visit(i32::from_le_bytes(bytes).into())),
            DType::U32 => self.visit(|bytes| visit(u32::from_le_bytes(bytes).into())),
            DType::I64 => self.visit(|bytes| visit(i64::from_le_bytes(bytes))),
            // The bits: two large numbers stay two categories.
            DType::U64 => self.visit(|bytes| visit(u64::from_le_bytes(bytes).cast_signed())),
            DType::F32 | DType::F16 => 0,
        }
    }

    /// The first of the largest elements, with its position; `None` when there is no number.
    fn largest(&self) -> Option<(usize, f32)> {
        let (mut largest, mut position) = (None, 0);
        self.reals(|value| {
            let larger = match largest {
                None => !value.is_nan(),
                Some((_, most)) => value > most,
            };
            if larger {
                largest = Some((position, value));
            }
            position += 1;
        });
        largest
    }

    fn visit<const N: usize>(&self, mut visit: impl FnMut([u8; N])) -> usize {
        let elements = self.bytes.as_chunks::<N>().0;
        let elements = elements.iter().skip(self.first).step_by(self.stride.max(1)).take(self.count);
        elements.fold(0, |seen, element| {
            visit(*element);
            seen + 1
        })
    }
}

//! Everything counted in a stretch of time.

use core::fmt;

use dunlin_artifact::Artifact;

use crate::{Failure, Feature, FeatureKind, Gauge, GaugeKind, Latency, Mark, Shape, Totals, counter};

/// Everything that one model did in a stretch of time.
///
/// `FEATURES` is the most features and `COUNTERS` the most counters over all features that fit; what a window
/// really has is its layout ([`Window::new`]). `dunlin_runtime::model!` computes both from an artifact.
///
/// Counters stop at `u32::MAX`; [`Window::saturated`] tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Window<const FEATURES: usize, const COUNTERS: usize> {
    model: [u8; 32],
    period: Period,
    saturated: bool,
    inferences: u32,
    failures: [u32; Failure::ALL.len()],
    latency: Latency,
    gauges: [Gauge; GaugeKind::ALL.len()],
    marks: [u32; Mark::ALL.len()],
    len: u16,
    features: [Slot; FEATURES],
    counters: [u32; COUNTERS],
}

/// One feature: where its counters lie, and its totals, packed alike on all processors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slot {
    kind: FeatureKind,
    start: u16,
    len: u16,
    missing: u32,
    min: f32,
    max: f32,
    sum: i64,
    /// Low and high half: a 128-bit number would be aligned to 16 bytes on some processors.
    squares: [u64; 2],
}

/// When a window was open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// When it was opened, in seconds since 1970 (UTC); 0 when the device did not know.
    pub start_unix_s: u64,
    /// How long it was open, in milliseconds; of merged windows the sum.
    pub duration_ms: u32,
    /// When it was closed, in milliseconds of the device's own monotonic clock; 0 while it is open.
    pub closed_ms: u64,
    /// How many closed windows were merged into it; 0 while it is open.
    pub windows: u32,
}

/// Why a window cannot have a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutError {
    /// Features that the layout has.
    pub features: usize,
    /// Counters that the layout has, over all features.
    pub counters: usize,
}

/// Why two windows cannot be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeError {
    /// They count different models.
    Model,
    /// They have different features.
    Layout,
}

impl<const FEATURES: usize, const COUNTERS: usize> Window<FEATURES, COUNTERS> {
    /// An empty window for the model whose artifact has this digest, with these features.
    ///
    /// # Errors
    /// When the features do not fit; the error says how many features and counters are needed.
    pub fn new(
        model: [u8; 32],
        layout: impl IntoIterator<Item = Shape, IntoIter: Clone>,
    ) -> Result<Self, LayoutError> {
        let layout = layout.into_iter();
        let counters = layout.clone().map(|shape| usize::from(shape.counters)).sum();
        let needed = LayoutError { features: layout.clone().count(), counters };
        // Positions are kept in 16 bits.
        let most = usize::from(u16::MAX);
        if needed.features > FEATURES.min(most) || needed.counters > COUNTERS.min(most) {
            return Err(needed);
        }
        let empty = Slot::new(FeatureKind::Numeric, 0, 0);
        let mut window = Window {
            model,
            period: Period::default(),
            saturated: false,
            inferences: 0,
            failures: [0; Failure::ALL.len()],
            latency: Latency::EMPTY,
            gauges: [Gauge::EMPTY; GaugeKind::ALL.len()],
            marks: [0; Mark::ALL.len()],
            len: needed.features as u16,
            features: [empty; FEATURES],
            counters: [0; COUNTERS],
        };
        let mut start = 0u16;
        for (slot, shape) in window.features.iter_mut().zip(layout) {
            *slot = Slot::new(shape.kind, start, shape.counters);
            start = start.saturating_add(shape.counters);
        }
        Ok(window)
    }

    /// An empty window for the features of an artifact's baseline; without one it has no features.
    ///
    /// # Errors
    /// When the features do not fit; the error says how many features and counters are needed.
    pub fn for_model(artifact: &Artifact<'_>) -> Result<Self, LayoutError> {
        let features = artifact.baseline().into_iter().flat_map(|baseline| baseline.features());
        Self::new(artifact.digest(), features.map(|feature| Shape::of(&feature)))
    }

    /// The same window with nothing in it.
    pub fn clear(&mut self) {
        self.period = Period::default();
        self.saturated = false;
        self.inferences = 0;
        self.failures = [0; Failure::ALL.len()];
        self.latency = Latency::EMPTY;
        self.gauges = [Gauge::EMPTY; GaugeKind::ALL.len()];
        self.marks = [0; Mark::ALL.len()];
        self.features.iter_mut().for_each(|slot| slot.set_totals(&Totals::EMPTY));
        self.counters = [0; COUNTERS];
    }

    /// Digest of the artifact that was counted.
    pub fn model(&self) -> &[u8; 32] {
        &self.model
    }

    /// When the window was open.
    pub fn period(&self) -> Period {
        self.period
    }

    /// Sets when the window was open.
    pub fn set_period(&mut self, period: Period) {
        self.period = period;
    }

    /// Whether a counter has reached its end, so that counts are lower bounds.
    pub fn saturated(&self) -> bool {
        self.saturated
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.inferences == 0
            && self.failures.iter().all(|&count| count == 0)
            && self.latency == Latency::EMPTY
            && self.gauges.iter().all(|gauge| *gauge == Gauge::EMPTY)
            && self.marks.iter().all(|&mark| mark == 0)
            && self.slots().iter().all(|slot| slot.totals() == Totals::EMPTY)
            && self.counters.iter().all(|&count| count == 0)
    }

    /// Inferences that gave a result.
    pub fn inferences(&self) -> u32 {
        self.inferences
    }

    /// Inferences that failed in this way.
    pub fn failed(&self, kind: Failure) -> u32 {
        self.failures.get(usize::from(kind.code())).copied().unwrap_or(0)
    }

    /// Inferences that failed, of all kinds.
    pub fn failures(&self) -> u64 {
        self.failures.iter().map(|&count| u64::from(count)).sum()
    }

    /// The latencies of inferences that gave a result.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// The readings of one kind.
    pub fn gauge(&self, kind: GaugeKind) -> Gauge {
        self.gauges.get(usize::from(kind.code())).copied().unwrap_or(Gauge::EMPTY)
    }

    /// A high-water mark in bytes; 0 when it was not measured.
    pub fn mark(&self, mark: Mark) -> u32 {
        self.marks.get(usize::from(mark.code())).copied().unwrap_or(0)
    }

    /// The number of features.
    pub fn feature_count(&self) -> usize {
        self.slots().len()
    }

    /// One feature, in the order of the artifact's baseline.
    pub fn feature(&self, index: usize) -> Option<Feature<'_>> {
        let slot = self.slots().get(index)?;
        let counts = self.counters.get(slot.range())?;
        Some(Feature { kind: slot.kind, counts, totals: slot.totals() })
    }

    /// All features, in the order of the artifact's baseline.
    pub fn features(&self) -> impl Iterator<Item = Feature<'_>> {
        (0..self.feature_count()).filter_map(|index| self.feature(index))
    }

    /// The features' kinds and sizes: a window of the same layout is `Window::new(*w.model(), w.layout())`.
    pub fn layout(&self) -> impl Iterator<Item = Shape> + Clone {
        self.slots().iter().map(|slot| Shape { kind: slot.kind, counters: slot.len })
    }

    /// Counts inferences that gave a result.
    pub fn add_inferences(&mut self, n: u32) {
        counter::add(&mut self.inferences, n, &mut self.saturated);
    }

    /// Counts inferences that failed.
    pub fn add_failures(&mut self, kind: Failure, n: u32) {
        if let Some(count) = self.failures.get_mut(usize::from(kind.code())) {
            counter::add(count, n, &mut self.saturated);
        }
    }

    /// Counts one latency.
    pub fn record_latency(&mut self, us: u64) {
        self.latency.record(us, &mut self.saturated);
    }

    /// Counts latencies of one bucket. `false` when there is no such bucket; nothing is counted then.
    #[must_use]
    pub fn add_latencies(&mut self, bucket: usize, n: u32) -> bool {
        let Some(count) = self.latency.counts.get_mut(bucket) else { return false };
        counter::add(count, n, &mut self.saturated);
        true
    }

    /// Adds to the sum of the latencies and raises the longest one: what [`Window::add_latencies`] leaves out.
    pub fn add_latency_sum(&mut self, sum_us: u64, max_us: u32) {
        self.latency.add_sum(sum_us, max_us);
    }

    /// Adds to one counter of a feature. `false` when there is no such feature or counter; nothing is counted
    /// then.
    #[must_use]
    pub fn add_count(&mut self, feature: usize, counter: usize, n: u32) -> bool {
        let Some(slot) = self.slots().get(feature).copied() else { return false };
        let counters = self.counters.get_mut(slot.range());
        let Some(count) = counters.and_then(|counters| counters.get_mut(counter)) else { return false };
        counter::add(count, n, &mut self.saturated);
        true
    }

    /// Adds to a feature's totals. `false` when there is no such feature.
    #[must_use]
    pub fn add_totals(&mut self, feature: usize, totals: &Totals) -> bool {
        let len = self.feature_count();
        let Some(slot) = self.features.get_mut(..len).and_then(|slots| slots.get_mut(feature)) else {
            return false;
        };
        slot.add(totals, &mut self.saturated);
        true
    }

    /// Adds readings; [`Gauge::of`] is one.
    pub fn add_gauge(&mut self, kind: GaugeKind, readings: Gauge) {
        if let Some(gauge) = self.gauges.get_mut(usize::from(kind.code())) {
            gauge.add(&readings, &mut self.saturated);
        }
    }

    /// Raises a high-water mark.
    pub fn raise_mark(&mut self, mark: Mark, bytes: u32) {
        if let Some(highest) = self.marks.get_mut(usize::from(mark.code())) {
            *highest = (*highest).max(bytes);
        }
    }

    /// Notes that counts from elsewhere had reached their end.
    pub fn set_saturated(&mut self) {
        self.saturated = true;
    }

    /// Adds another window of the same model to this one, as if both had been counted in one. The order does not
    /// matter, nor does the grouping.
    ///
    /// # Errors
    /// When the windows count different models or features; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        self.check(other)?;
        self.period.merge(&other.period);
        let saturated = &mut self.saturated;
        *saturated |= other.saturated;
        counter::add(&mut self.inferences, other.inferences, saturated);
        add_all(&mut self.failures, &other.failures, saturated);
        add_all(&mut self.latency.counts, &other.latency.counts, saturated);
        self.latency.add_sum(other.latency.sum_us, other.latency.max_us);
        for (gauge, other) in self.gauges.iter_mut().zip(&other.gauges) {
            gauge.add(other, saturated);
        }
        for (mark, other) in self.marks.iter_mut().zip(&other.marks) {
            *mark = (*mark).max(*other);
        }
        for (slot, other) in self.features.iter_mut().zip(&other.features) {
            slot.add(&other.totals(), saturated);
        }
        add_all(&mut self.counters, &other.counters, saturated);
        Ok(())
    }

    /// Whether [`Window::merge`] would succeed and no counter reach its end.
    pub fn fits(&self, other: &Self) -> bool {
        let all = |a: &[u32], b: &[u32]| a.iter().zip(b).all(|(a, b)| counter::fits(*a, *b));
        self.check(other).is_ok()
            && counter::fits(self.period.duration_ms, other.period.duration_ms)
            && counter::fits(self.inferences, other.inferences)
            && all(&self.failures, &other.failures)
            && all(&self.latency.counts, &other.latency.counts)
            && self.gauges.iter().zip(&other.gauges).all(|(a, b)| counter::fits(a.n, b.n))
            && self.slots().iter().zip(other.slots()).all(|(a, b)| counter::fits(a.missing, b.missing))
            && all(&self.counters, &other.counters)
    }

    /// A feature's counters, the place of its totals, and the window's sign of saturation.
    pub(crate) fn parts(&mut self, feature: usize) -> Option<(&mut [u32], &mut Slot, &mut bool)> {
        let len = self.feature_count();
        let slot = self.features.get_mut(..len)?.get_mut(feature)?;
        let counters = self.counters.get_mut(slot.range())?;
        Some((counters, slot, &mut self.saturated))
    }

    fn check(&self, other: &Self) -> Result<(), MergeError> {
        if self.model != other.model {
            return Err(MergeError::Model);
        }
        if self.layout().eq(other.layout()) { Ok(()) } else { Err(MergeError::Layout) }
    }

    fn slots(&self) -> &[Slot] {
        self.features.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl Slot {
    fn new(kind: FeatureKind, start: u16, len: u16) -> Self {
        let mut slot = Slot { kind, start, len, missing: 0, min: 0.0, max: 0.0, sum: 0, squares: [0; 2] };
        slot.set_totals(&Totals::EMPTY);
        slot
    }

    fn totals(&self) -> Totals {
        let [low, high] = self.squares.map(u128::from);
        Totals {
            missing: self.missing,
            min: self.min,
            max: self.max,
            sum: self.sum,
            squares: low | high << 64,
        }
    }

    fn set_totals(&mut self, totals: &Totals) {
        let Totals { missing, min, max, sum, squares } = *totals;
        (self.missing, self.min, self.max, self.sum) = (missing, min, max, sum);
        self.squares = [squares as u64, (squares >> 64) as u64];
    }

    pub(crate) fn add(&mut self, totals: &Totals, saturated: &mut bool) {
        let mut sum = self.totals();
        sum.add(totals, saturated);
        self.set_totals(&sum);
    }

    fn range(&self) -> core::ops::Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.len)
    }
}

/// Bytes of RAM of a window for this many features and counters, on every processor.
pub const fn window_bytes(features: usize, counters: usize) -> usize {
    (size_of::<Window<0, 0>>() + features * size_of::<Slot>() + counters * size_of::<u32>())
        .next_multiple_of(8)
}

impl Period {
    /// The earliest known start, the sum of the durations, the latest end.
    pub fn merge(&mut self, other: &Period) {
        self.start_unix_s = match (self.start_unix_s, other.start_unix_s) {
            (0, known) | (known, 0) => known,
            (a, b) => a.min(b),
        };
        self.duration_ms = self.duration_ms.saturating_add(other.duration_ms);
        self.closed_ms = self.closed_ms.max(other.closed_ms);
        self.windows = self.windows.saturating_add(other.windows);
    }
}

fn add_all(counters: &mut [u32], others: &[u32], saturated: &mut bool) {
    counters.iter_mut().zip(others).for_each(|(count, other)| counter::add(count, *other, saturated));
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the model's baseline needs a window of {} features and {} counters",
            self.features, self.counters
        )
    }
}

impl core::error::Error for LayoutError {}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MergeError::Model => "the windows count different models",
            MergeError::Layout => "the windows count different features",
        })
    }
}

impl core::error::Error for MergeError {}

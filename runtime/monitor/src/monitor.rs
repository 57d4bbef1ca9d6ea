//! The monitor of one model slot.

use dunlin_artifact::Artifact;
use dunlin_artifact::baseline::{Category, Source};

use crate::observe::Value;
use crate::{Failure, Gauge, GaugeKind, LayoutError, Mark, Period, Ring, Window};

/// Counts what a model does, in the bins of its artifact's baseline.
///
/// `FEATURES` and `COUNTERS` bound the memory; `dunlin_runtime::model!` computes both from the artifact, and any
/// larger numbers do as well, for example those of a slot that models are delivered to.
///
/// The work of an observation is bounded by the artifact: [`dunlin_artifact::limits::MAX_OBSERVED`] elements at
/// most, each a binary search among at most 63 edges.
///
/// ```text
/// let mut monitor = Monitor::<{ kws::FEATURES }, { kws::COUNTERS }>::new(artifact, Schedule::default(), now_ms)?;
/// session.input_mut::<i8>(0)?.copy_from_slice(&samples);
/// monitor.observe_input(0, session.input_bytes_mut(0)?);    // before the run, which reuses the input's memory
/// let start = now_us();
/// match session.run() {
///     Ok(()) => {
///         monitor.completed(now_us() - start);
///         monitor.observe_output(0, session.output_bytes(0)?);
///     }
///     Err(_) => monitor.failed(Failure::Run),
/// }
/// if monitor.due(now_ms()) {
///     monitor.close_into(&mut ring, now_ms(), unix_s());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Monitor<'m, const FEATURES: usize, const COUNTERS: usize> {
    artifact: Artifact<'m>,
    window: Window<FEATURES, COUNTERS>,
    schedule: Schedule,
    opened_ms: u64,
}

/// When a window is closed: whatever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// After this time, in milliseconds.
    pub period_ms: u32,
    /// After so many inferences, failed ones included. More than [`Schedule::MAX_RUNS`] count as that many.
    pub runs: u32,
}

impl Schedule {
    /// The most inferences in one window: with them no counter of a monitored tensor can reach its end.
    pub const MAX_RUNS: u32 = u16::MAX as u32;
}

impl Default for Schedule {
    /// A minute.
    fn default() -> Self {
        Schedule { period_ms: 60_000, runs: Self::MAX_RUNS }
    }
}

impl<'m, const FEATURES: usize, const COUNTERS: usize> Monitor<'m, FEATURES, COUNTERS> {
    /// A monitor for this artifact with an open window. An artifact without baseline is monitored without features:
    /// inferences, failures, latencies, gauges and marks.
    ///
    /// # Errors
    /// When the baseline needs more features or counters; the error says how many.
    pub fn new(artifact: Artifact<'m>, schedule: Schedule, now_ms: u64) -> Result<Self, LayoutError> {
        let window = Window::for_model(&artifact)?;
        Ok(Monitor { artifact, window, schedule, opened_ms: now_ms })
    }

    /// The open window.
    pub fn window(&self) -> &Window<FEATURES, COUNTERS> {
        &self.window
    }

    /// The artifact that is monitored.
    pub fn artifact(&self) -> Artifact<'m> {
        self.artifact
    }

    /// When windows are closed.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// Changes when windows are closed, from the open window on.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = schedule;
    }

    /// Counts the bytes of an input. To be called before the run, which reuses the input's memory.
    pub fn observe_input(&mut self, index: usize, bytes: &[u8]) {
        self.observe(u16::try_from(index).map(Source::Input), bytes);
    }

    /// Counts the bytes of an output.
    pub fn observe_output(&mut self, index: usize, bytes: &[u8]) {
        self.observe(u16::try_from(index).map(Source::Output), bytes);
    }

    fn observe(&mut self, source: Result<Source, core::num::TryFromIntError>, bytes: &[u8]) {
        let (Ok(source), Some(baseline)) = (source, self.artifact.baseline()) else { return };
        for (index, feature) in baseline.features().enumerate() {
            if let (true, Some(tensor)) = (feature.source == source, feature.tensor) {
                self.window.observe_tensor(index, &feature, &tensor, bytes);
            }
        }
    }

    /// Counts a value of a numeric feature that the application brings. `false` when the feature with this index
    /// (in the baseline's order) is none.
    pub fn observe_value(&mut self, feature: usize, value: f32) -> bool {
        self.observe_one(feature, Value::Real(value))
    }

    /// Counts a value of a categorical feature that the application brings. `false` when the feature with this index
    /// (in the baseline's order) is none.
    pub fn observe_category(&mut self, feature: usize, category: Category<'_>) -> bool {
        self.observe_one(feature, Value::Category(category))
    }

    /// Counts a missing value of a feature that the application brings. `false` when the feature with this index (in
    /// the baseline's order) is none.
    pub fn observe_missing(&mut self, feature: usize) -> bool {
        self.observe_one(feature, Value::Missing)
    }

    fn observe_one(&mut self, index: usize, value: Value<'_>) -> bool {
        let mut features = self.artifact.baseline().into_iter().flat_map(|baseline| baseline.features());
        match features.nth(index) {
            Some(feature) if feature.source == Source::Application => {
                self.window.observe_one(index, &feature, value)
            }
            _ => false,
        }
    }

    /// Counts an inference that gave a result, and how long it took.
    pub fn completed(&mut self, latency_us: u64) {
        self.window.add_inferences(1);
        self.window.record_latency(latency_us);
    }

    /// Counts an inference that failed.
    pub fn failed(&mut self, kind: Failure) {
        self.window.add_failures(kind, 1);
    }

    /// Takes a reading, in thousandths of the gauge's unit.
    pub fn reading(&mut self, gauge: GaugeKind, reading: i32) {
        self.window.add_gauge(gauge, Gauge::of(reading));
    }

    /// Raises a high-water mark.
    pub fn mark(&mut self, mark: Mark, bytes: u32) {
        self.window.raise_mark(mark, bytes);
    }

    /// Whether the open window is to be closed. A window in which nothing was counted stays open.
    pub fn due(&self, now_ms: u64) -> bool {
        let runs = u64::from(self.window.inferences()).saturating_add(self.window.failures());
        let enough = runs >= u64::from(self.schedule.runs.clamp(1, Schedule::MAX_RUNS));
        enough || (self.open_ms(now_ms) >= u64::from(self.schedule.period_ms) && !self.window.is_empty())
    }

    /// Closes the window, puts it into the ring and opens an empty one. `unix_s` is the time in seconds since 1970
    /// (UTC), 0 when the device does not know it. `true` when it went in.
    ///
    /// A ring that cannot take it ([`Ring::push`]) changes nothing: the window stays open and counts on.
    pub fn close_into<const N: usize>(
        &mut self,
        ring: &mut Ring<N, FEATURES, COUNTERS>,
        now_ms: u64,
        unix_s: u64,
    ) -> bool {
        let mut closed = self.window.clone();
        closed.set_period(self.period(now_ms, unix_s));
        let taken = ring.push(closed).is_ok();
        if taken {
            self.window.clear();
            self.opened_ms = now_ms;
        }
        taken
    }

    /// Closes the window and opens an empty one, for callers who keep windows in another way; the arguments are
    /// those of [`Monitor::close_into`].
    pub fn close(&mut self, now_ms: u64, unix_s: u64) -> Window<FEATURES, COUNTERS> {
        let mut closed = self.window.clone();
        closed.set_period(self.period(now_ms, unix_s));
        self.window.clear();
        self.opened_ms = now_ms;
        closed
    }

    /// The period of a window that is closed now. Its start is reckoned back from now, as a device often learns the
    /// time only after it has begun to count.
    fn period(&self, now_ms: u64, unix_s: u64) -> Period {
        let open_ms = self.open_ms(now_ms);
        Period {
            start_unix_s: unix_s.saturating_sub(open_ms / 1000),
            duration_ms: u32::try_from(open_ms).unwrap_or(u32::MAX),
            closed_ms: now_ms,
            windows: 1,
        }
    }

    fn open_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.opened_ms)
    }
}

//! From a window to reports that fit a budget.

use dunlin_monitor::{Failure, Feature, FeatureKind, Gauge, GaugeKind, Mark, Totals, Window};

use super::section::{GaugeReading, MarkReading, tag};
use crate::limits::{MAX_GAUGE_SUM, MAX_LATENCY_SUM, MAX_READINGS, MAX_SLOT, MAX_SQUARES, MAX_SUM};
use crate::wire::Writer;
use crate::{EncodeError, List};

/// Writes a closed window as the bodies of one or several reports.
///
/// A window that fits the budget becomes one report. Otherwise it is split between sections, and a section that is
/// larger than the budget by itself is split between bins. As sections add, the receiver needs no reassembly; but
/// all reports of a window must be put into the outbox together, or none.
///
/// ```
/// use dunlin_monitor::{FeatureKind, Shape, Window};
/// use dunlin_protocol::{Report, ReportEncoder, limits};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let shape = Shape { kind: FeatureKind::Classes, counters: 12 };
/// let mut window: Window<1, 12> = Window::new([7; 32], [shape])?;
/// window.add_inferences(3);
/// assert!(window.add_count(0, 4, 3));
///
/// let mut encoder = ReportEncoder::new("kws", &window);
/// let mut body = [0; limits::REPORT_BUDGET - limits::MAX_ENVELOPE];
/// while let Some(len) = encoder.next_body(&mut body)? {
///     let report = Report::decode(&body[..len])?; // give body[..len] a sequence number and keep it
///     assert_eq!(report.header().slot, "kws");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ReportEncoder<'w, const FEATURES: usize, const COUNTERS: usize> {
    slot: &'w str,
    window: &'w Window<FEATURES, COUNTERS>,
    part: u16,
    /// The section to be written next; `None` after the last one.
    next: Option<Position>,
}

/// A place in a window.
#[derive(Clone, Copy, Debug)]
struct Position {
    section: Kind,
    /// The first counter of the section that has not been written.
    counter: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Counts,
    Gauges,
    Marks,
    Latency,
    Feature(usize),
}

impl Kind {
    fn following(self) -> Self {
        match self {
            Self::Counts => Self::Gauges,
            Self::Gauges => Self::Marks,
            Self::Marks => Self::Latency,
            Self::Latency => Self::Feature(0),
            Self::Feature(index) => Self::Feature(index.saturating_add(1)),
        }
    }
}

/// Kept free behind the last bin of a section that is being split, for the lengths of its bins and of itself, which
/// may need another two bytes each.
const RESERVE: usize = 4;

const _: () = assert!(GaugeKind::ALL.len() <= MAX_READINGS && Mark::ALL.len() <= MAX_READINGS);

impl<'w, const FEATURES: usize, const COUNTERS: usize> ReportEncoder<'w, FEATURES, COUNTERS> {
    /// Begins with a window's first report. `slot` is the name of the model slot.
    pub fn new(slot: &'w str, window: &'w Window<FEATURES, COUNTERS>) -> Self {
        Self { slot, window, part: 0, next: Some(Position { section: Kind::Counts, counter: 0 }) }
    }

    /// How many reports are still to be written into buffers of the length of `scratch`.
    ///
    /// # Errors
    /// As [`Self::next_body`].
    pub fn remaining(&self, scratch: &mut [u8]) -> Result<usize, EncodeError> {
        let mut encoder = self.clone();
        let mut reports = 0;
        while encoder.next_body(scratch)?.is_some() {
            reports += 1;
        }
        Ok(reports)
    }

    /// Writes the next report's body into `out`, whose length is the budget of a body
    /// ([`crate::limits::REPORT_BUDGET`] - [`crate::limits::MAX_ENVELOPE`] by default); the number of bytes
    /// written, or `None` when the whole window has been written.
    ///
    /// # Errors
    /// [`EncodeError::Full`] when `out` is shorter than [`crate::limits::MIN_REPORT_BUDGET`] -
    /// [`crate::limits::MAX_ENVELOPE`] and cannot hold a section, [`EncodeError::Limit`] when the slot's name is too
    /// long. Nothing is skipped: the same report can be written again into a larger buffer.
    pub fn next_body(&mut self, out: &mut [u8]) -> Result<Option<usize>, EncodeError> {
        let Some(mut position) = self.next else { return Ok(None) };
        let mut writer = Writer::new(out);
        self.header(&mut writer)?;
        let header = writer.len();
        let rest = loop {
            let whole = self.section(&mut writer, position, Split::Never);
            match whole {
                Ok(Written::All) => {
                    position = Position { section: position.section.following(), counter: 0 };
                }
                Ok(Written::Until(counter)) => break Some(Position { counter, ..position }),
                Ok(Written::End) => break None,
                // There is more room in a report of its own.
                Err(EncodeError::Full { .. }) if writer.len() > header => break Some(position),
                Err(EncodeError::Full { .. }) => match self.section(&mut writer, position, Split::Allowed)? {
                    Written::Until(counter) => break Some(Position { counter, ..position }),
                    Written::All | Written::End => break None,
                },
                Err(error) => return Err(error),
            }
        };
        self.next = rest;
        self.part = self.part.saturating_add(1);
        Ok(Some(writer.len()))
    }

    fn header(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let period = self.window.period();
        writer.nested("report.header", |writer| {
            writer.text("report.slot", self.slot, MAX_SLOT)?;
            writer.raw("report.model", self.window.model())?;
            writer.put("report.start_unix_s", &period.start_unix_s)?;
            writer.put("report.duration_ms", &period.duration_ms)?;
            writer.put("report.windows", &period.windows)?;
            writer.put("report.part", &self.part)
        })
    }

    /// Writes a section, from a counter on, if there is anything in it. What does not fit is taken back.
    fn section(&self, writer: &mut Writer, position: Position, split: Split) -> Result<Written, EncodeError> {
        let start = writer.len();
        let result = match position.section {
            Kind::Counts => self.counts(writer),
            Kind::Gauges => self.gauges(writer),
            Kind::Marks => self.marks(writer),
            Kind::Latency => self.latency(writer, position.counter, split),
            Kind::Feature(index) => match self.window.feature(index) {
                Some(feature) => write_feature(writer, index, &feature, position.counter, split),
                None => Ok(Written::End),
            },
        };
        if result.is_err() {
            writer.truncate(start);
        }
        result
    }

    /// Always written, so that every window is seen.
    fn counts(&self, writer: &mut Writer) -> Result<Written, EncodeError> {
        let failures = Failure::ALL.map(|kind| self.window.failed(kind));
        writer.put("report.section", &tag::COUNTS)?;
        writer.nested("counts", |writer| {
            writer.put("counts.inferences", &self.window.inferences())?;
            writer.put("counts.saturated", &self.window.saturated())?;
            write_bins(writer, "counts.failures", &failures, 0, Split::Never).map(drop)
        })?;
        Ok(Written::All)
    }

    fn gauges(&self, writer: &mut Writer) -> Result<Written, EncodeError> {
        let mut readings = [GaugeReading { kind: 0, n: 0, min: 0, max: 0, sum: 0 }; GaugeKind::ALL.len()];
        let measured = GaugeKind::ALL.into_iter().map(|kind| (kind, self.window.gauge(kind)));
        let measured = measured.filter(|(_, gauge)| *gauge != Gauge::EMPTY);
        let mut len = 0;
        for (reading, (kind, gauge)) in readings.iter_mut().zip(measured) {
            *reading = GaugeReading {
                kind: kind.code(),
                n: u64::from(gauge.n),
                min: gauge.min,
                max: gauge.max,
                sum: gauge.sum.clamp(-(MAX_GAUGE_SUM as i64), MAX_GAUGE_SUM as i64),
            };
            len += 1;
        }
        write_list(writer, tag::GAUGES, readings.get(..len).unwrap_or_default())
    }

    fn marks(&self, writer: &mut Writer) -> Result<Written, EncodeError> {
        let mut readings = [MarkReading { mark: 0, bytes: 0 }; Mark::ALL.len()];
        let measured = Mark::ALL.into_iter().map(|mark| (mark, self.window.mark(mark)));
        let mut len = 0;
        for (reading, (mark, bytes)) in readings.iter_mut().zip(measured.filter(|(_, bytes)| *bytes > 0)) {
            *reading = MarkReading { mark: mark.code(), bytes };
            len += 1;
        }
        write_list(writer, tag::MARKS, readings.get(..len).unwrap_or_default())
    }

    fn latency(&self, writer: &mut Writer, from: usize, split: Split) -> Result<Written, EncodeError> {
        let latency = self.window.latency();
        let (sum_us, max_us) = if from == 0 { (latency.sum_us(), latency.max_us()) } else { (0, 0) };
        let counts = latency.counts();
        if is_zero(counts, from) && (sum_us, max_us) == (0, 0) {
            return Ok(Written::All);
        }
        writer.put("report.section", &tag::LATENCY)?;
        let mut written = Written::All;
        writer.nested("latency", |writer| {
            writer.put("latency.sum_us", &sum_us.min(MAX_LATENCY_SUM))?;
            writer.put("latency.max_us", &max_us)?;
            written = write_bins(writer, "latency.bins", counts, from, split)?;
            Ok(())
        })?;
        Ok(written)
    }
}

/// Whether a section may be written in part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Split {
    Never,
    Allowed,
}

/// How far a section was written.
enum Written {
    /// To its end.
    All,
    /// Up to this counter.
    Until(usize),
    /// There is no such section: the window ends before it.
    End,
}

fn is_zero(counts: &[u32], from: usize) -> bool {
    counts.iter().skip(from).all(|count| *count == 0)
}

fn write_list<'a, T: crate::Item<'a>>(
    writer: &mut Writer,
    tag: u8,
    readings: &'a [T],
) -> Result<Written, EncodeError> {
    if !readings.is_empty() {
        writer.put("report.section", &tag)?;
        writer.nested(T::FIELD, |writer| List::from(readings).write(writer, MAX_READINGS))?;
    }
    Ok(Written::All)
}

fn write_feature(
    writer: &mut Writer,
    index: usize,
    feature: &Feature,
    from: usize,
    split: Split,
) -> Result<Written, EncodeError> {
    let totals = if from == 0 { feature.totals } else { Totals::EMPTY };
    if is_zero(feature.counts, from) && totals == Totals::EMPTY {
        return Ok(Written::All);
    }
    let limit = |_| EncodeError::Limit { field: "feature.feature" };
    let index = u16::try_from(index).map_err(limit)?;
    let counters = u32::try_from(feature.counts.len()).map_err(limit)?;
    let tag = match feature.kind {
        FeatureKind::Numeric => tag::NUMERIC,
        FeatureKind::Classes => tag::CLASSES,
        FeatureKind::Categories => tag::CATEGORIES,
    };
    writer.put("report.section", &tag)?;
    let mut written = Written::All;
    writer.nested("feature", |writer| {
        writer.put("feature.feature", &index)?;
        writer.put("feature.counters", &counters)?;
        writer.put("feature.missing", &totals.missing)?;
        if feature.kind == FeatureKind::Numeric {
            writer.put("feature.min", &totals.min)?;
            writer.put("feature.max", &totals.max)?;
            writer.put("feature.sum", &totals.sum.clamp(-(MAX_SUM as i64), MAX_SUM as i64))?;
            writer.put("feature.squares", &totals.squares.min(MAX_SQUARES))?;
        }
        written = write_bins(writer, "feature.bins", feature.counts, from, split)?;
        Ok(())
    })?;
    Ok(written)
}

/// Writes the counters from `from` on, the zero ones left out; as many as fit when it may be split.
fn write_bins(
    writer: &mut Writer,
    field: &'static str,
    counts: &[u32],
    from: usize,
    split: Split,
) -> Result<Written, EncodeError> {
    let mut written = Written::All;
    writer.nested(field, |writer| {
        let mut next = 0;
        let counted = counts.iter().enumerate().skip(from).filter(|(_, count)| **count > 0);
        for (pairs, (index, count)) in counted.enumerate() {
            let start = writer.len();
            let gap = u32::try_from(index - next).map_err(|_| EncodeError::Limit { field })?;
            let result = writer.put(field, &gap).and_then(|()| writer.put(field, count));
            if split == Split::Allowed && pairs > 0 && (result.is_err() || writer.room() < RESERVE) {
                writer.truncate(start);
                written = Written::Until(index);
                break;
            }
            result?;
            next = index + 1;
        }
        Ok(())
    })?;
    Ok(written)
}

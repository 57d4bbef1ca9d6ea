//! The sections of a report.

use super::bins::Bins;
use crate::limits::{MAX_COUNTERS, MAX_GAUGE_SUM, MAX_LATENCY_SUM, MAX_READINGS, MAX_SQUARES, MAX_SUM};
use crate::list::Item;
use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError, List};

/// Numbers of the sections on the wire.
pub(crate) mod tag {
    pub(crate) const COUNTS: u8 = 1;
    pub(crate) const LATENCY: u8 = 2;
    pub(crate) const NUMERIC: u8 = 3;
    pub(crate) const CLASSES: u8 = 4;
    pub(crate) const CATEGORIES: u8 = 5;
    pub(crate) const GAUGES: u8 = 6;
    pub(crate) const MARKS: u8 = 7;
}

/// A part of a report. Sections add: counts and sums by addition, `min`, `max` and marks by minimum and maximum. A
/// section may be split over several reports, or occur several times in one; adding them gives the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Section<'a> {
    /// Inferences and failures.
    Counts(Counts<'a>),
    /// The histogram of latencies.
    Latency(LatencySection<'a>),
    /// A feature with real values.
    Numeric(NumericSection<'a>),
    /// A feature with classes: one counter each.
    Classes(CountedSection<'a>),
    /// A feature with categories: a counter for each that the baseline knows, then hashed buckets.
    Categories(CountedSection<'a>),
    /// Readings of the device itself.
    Gauges(List<'a, GaugeReading>),
    /// High-water marks.
    Marks(List<'a, MarkReading>),
    /// A section that this version of the protocol does not know yet. Skip it.
    Unknown {
        /// Its number.
        tag: u8,
        /// Its bytes.
        bytes: &'a [u8],
    },
}

/// Inferences and failures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts<'a> {
    /// Inferences that gave a result.
    pub inferences: u64,
    /// A counter on the device has reached its end: counts of this report are lower bounds.
    pub saturated: bool,
    /// Inferences that gave no result, by the number of the kind of failure (`dunlin_monitor::Failure::from_code`).
    pub failures: Bins<'a>,
}

/// The histogram of latencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencySection<'a> {
    /// The sum of all latencies in microseconds.
    pub sum_us: u64,
    /// The longest latency in microseconds.
    pub max_us: u32,
    /// Counts by bucket; `dunlin_monitor::Latency::bounds` has the buckets' limits.
    pub bins: Bins<'a>,
}

/// A feature with real values. Values stand in fixed point for `(value - zero) / unit`, with the `unit` and `zero`
/// of the artifact's baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumericSection<'a> {
    /// The feature's index in the artifact's baseline.
    pub feature: u16,
    /// The number of counters that the device has for the feature: the baseline's edges + 1.
    pub counters: u32,
    /// Values that were missing.
    pub missing: u64,
    /// The smallest value; positive infinity when there is none. Never a NaN.
    pub min: f32,
    /// The largest value; negative infinity when there is none. Never a NaN.
    pub max: f32,
    /// The sum of all values in fixed point.
    pub sum: i64,
    /// The sum of the squares of all values in fixed point.
    pub squares: u128,
    /// Counts by bin: the first is the underflow, the last (`counters - 1`) the overflow.
    pub bins: Bins<'a>,
}

/// A feature that is counted without sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CountedSection<'a> {
    /// The feature's index in the artifact's baseline.
    pub feature: u16,
    /// The number of counters that the device has for the feature.
    pub counters: u32,
    /// Values that were missing.
    pub missing: u64,
    /// Counts by class or category.
    pub bins: Bins<'a>,
}

/// Readings of one gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GaugeReading {
    /// The number of the kind (`dunlin_monitor::GaugeKind::from_code`); skip kinds that are not known.
    pub kind: u8,
    /// Number of readings.
    pub n: u64,
    /// The smallest reading, in thousandths of the kind's unit.
    pub min: i32,
    /// The largest reading.
    pub max: i32,
    /// The sum of the readings.
    pub sum: i64,
}

/// A high-water mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkReading {
    /// The number of the mark (`dunlin_monitor::Mark::from_code`); skip marks that are not known.
    pub mark: u8,
    /// The most bytes that were used.
    pub bytes: u32,
}

impl<'a> Section<'a> {
    pub(crate) fn read(tag: u8, mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        let reader = &mut reader;
        Ok(match tag {
            tag::COUNTS => Self::Counts(Counts {
                inferences: reader.count("counts.inferences")?,
                saturated: reader.take("counts.saturated")?,
                failures: Bins::read(reader, "counts.failures", 256)?,
            }),
            tag::LATENCY => Self::Latency(LatencySection {
                sum_us: at_most(reader.take("latency.sum_us")?, MAX_LATENCY_SUM, "latency.sum_us")?,
                max_us: reader.take("latency.max_us")?,
                bins: Bins::read(reader, "latency.bins", MAX_COUNTERS)?,
            }),
            tag::NUMERIC => {
                let (feature, counters, missing) = feature(reader)?;
                Self::Numeric(NumericSection {
                    feature,
                    counters,
                    missing,
                    min: number(reader, "feature.min")?,
                    max: number(reader, "feature.max")?,
                    sum: magnitude(reader, MAX_SUM, "feature.sum")?,
                    squares: at_most(reader.take("feature.squares")?, MAX_SQUARES, "feature.squares")?,
                    bins: Bins::read(reader, "feature.bins", counters)?,
                })
            }
            tag::CLASSES => Self::Classes(counted(reader)?),
            tag::CATEGORIES => Self::Categories(counted(reader)?),
            tag::GAUGES => Self::Gauges(List::read(reader, MAX_READINGS)?),
            tag::MARKS => Self::Marks(List::read(reader, MAX_READINGS)?),
            tag => Self::Unknown { tag, bytes: reader.rest() },
        })
    }
}

fn counted<'a>(reader: &mut Reader<'a>) -> Result<CountedSection<'a>, DecodeError> {
    let (feature, counters, missing) = feature(reader)?;
    Ok(CountedSection { feature, counters, missing, bins: Bins::read(reader, "feature.bins", counters)? })
}

fn feature(reader: &mut Reader) -> Result<(u16, u32, u64), DecodeError> {
    let feature = reader.take("feature.feature")?;
    let counters = at_most(reader.take("feature.counters")?, MAX_COUNTERS, "feature.counters")?;
    Ok((feature, counters, reader.count("feature.missing")?))
}

fn number(reader: &mut Reader, field: &'static str) -> Result<f32, DecodeError> {
    let number: f32 = reader.take(field)?;
    if number.is_nan() { Err(DecodeError::Invalid { field }) } else { Ok(number) }
}

fn at_most<T: PartialOrd>(value: T, limit: T, field: &'static str) -> Result<T, DecodeError> {
    if value > limit { Err(DecodeError::Limit { field }) } else { Ok(value) }
}

fn magnitude(reader: &mut Reader, limit: u64, field: &'static str) -> Result<i64, DecodeError> {
    let value: i64 = reader.take(field)?;
    at_most(value.unsigned_abs(), limit, field).map(|_| value)
}

impl<'a> Item<'a> for GaugeReading {
    const FIELD: &'static str = "gauges";

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: reader.take("gauge.kind")?,
            n: reader.count("gauge.n")?,
            min: reader.take("gauge.min")?,
            max: reader.take("gauge.max")?,
            sum: magnitude(reader, MAX_GAUGE_SUM, "gauge.sum")?,
        })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.put("gauge.kind", &self.kind)?;
        writer.count("gauge.n", self.n)?;
        writer.put("gauge.min", &self.min)?;
        writer.put("gauge.max", &self.max)?;
        writer.put("gauge.sum", &self.sum)
    }
}

impl<'a> Item<'a> for MarkReading {
    const FIELD: &'static str = "marks";

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { mark: reader.take("mark.mark")?, bytes: reader.take("mark.bytes")? })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.put("mark.mark", &self.mark)?;
        writer.put("mark.bytes", &self.bytes)
    }
}

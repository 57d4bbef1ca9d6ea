//! The baseline: which features of a model are monitored, how they are counted, and what the calibration data
//! counted to.
//!
//! Devices count into the same bins, so that their counts add up over devices and time and compare with the
//! reference directly.

use serde::{Deserialize, Serialize};

use crate::{Artifact, DType, FormatError, Tensor, limits};

/// The baseline of an artifact.
#[derive(Clone, Copy, Debug)]
pub struct Baseline<'a> {
    artifact: Artifact<'a>,
    head: Head,
    records: &'a [u8],
}

/// The fixed part at the section's beginning; `model!` reads it at compile time.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    features: u16,
    counters: u16,
    samples: u32,
}

/// Bytes of [`Head`]: `u16` features, `u16` counters, `u32` samples.
pub(crate) const HEAD: usize = 8;

/// One monitored feature.
#[derive(Clone, Copy, Debug)]
pub struct Feature<'a> {
    /// Its name; the compiler gives every feature a different one.
    pub name: &'a str,
    /// Where its values come from.
    pub source: Source,
    /// Which values of the source.
    pub part: Part,
    /// The tensor that `source` names; `None` for [`Source::Application`].
    pub tensor: Option<Tensor>,
    /// How it is counted, and what the calibration data counted to.
    pub bins: Bins<'a>,
    /// Values of the calibration data that were missing.
    pub missing: u32,
}

/// Where a feature's values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The input with this index.
    Input(u16),
    /// The output with this index.
    Output(u16),
    /// The application passes the values to the monitor.
    Application,
}

/// Which values of a tensor a feature takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// The elements 0, `stride`, `2 stride`, … in one distribution. A stride of 1 takes all; a larger one bounds the
    /// work for large tensors.
    Elements {
        /// At least 1.
        stride: u32,
    },
    /// One element.
    Element(u32),
    /// The largest element, the confidence of a classifier: one value per run.
    Max,
    /// The position of the largest element (the first of equal ones), the predicted class: one value per run.
    ArgMax,
}

/// How a feature is counted, and what the calibration data counted to.
#[derive(Clone, Copy, Debug)]
pub enum Bins<'a> {
    /// Real values between edges.
    Numeric(Numeric<'a>),
    /// Classes: one counter each.
    Classes(Counts<'a>),
    /// Integers or strings: one counter for each known category, then hashed buckets for all others.
    Categories(Categories<'a>),
}

/// How real values are counted.
#[derive(Clone, Copy, Debug)]
pub struct Numeric<'a> {
    /// The edges between the bins.
    pub edges: Edges<'a>,
    /// One count more than there are edges; the first is the underflow, the last the overflow.
    pub counts: Counts<'a>,
    /// The smallest value; positive infinity when there was none.
    pub min: f32,
    /// The largest value; negative infinity when there was none.
    pub max: f32,
    /// The step of the fixed-point sums; positive and finite.
    pub unit: f32,
    /// The value that counts as 0 in the fixed-point sums.
    pub zero: f32,
    /// The sum of all values in fixed point: each is `(value - zero) / unit`, rounded.
    pub sum: i64,
    /// The sum of the squares of all values in fixed point.
    pub squares: u128,
}

/// How categories are counted.
#[derive(Clone, Copy, Debug)]
pub struct Categories<'a> {
    /// Hashes of the known categories, ascending ([`Category::hash`]).
    pub known: Counts<'a>,
    /// Counts of the known categories in the same order, then of the buckets for others.
    pub counts: Counts<'a>,
}

/// A value of a categorical feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category<'a> {
    /// An integer.
    Integer(i64),
    /// A string.
    Text(&'a str),
}

/// Ascending edges of bins, borrowed from the artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edges<'a>(&'a [[u8; 4]]);

/// Unsigned 32-bit numbers, borrowed from the artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts<'a>(&'a [[u8; 4]]);

impl Edges<'_> {
    /// Number of edges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no edge. There always is one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The edges in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f32> + Clone {
        self.0.iter().map(|edge| f32::from_le_bytes(*edge))
    }

    /// The bin of a value: the number of edges below it, so that bin *i* holds the values above edge *i - 1*, up to
    /// and including edge *i*.
    pub fn bin(&self, value: f32) -> usize {
        self.0.partition_point(|edge| f32::from_le_bytes(*edge) < value)
    }
}

impl Counts<'_> {
    /// How many numbers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + Clone {
        self.0.iter().map(|count| u32::from_le_bytes(*count))
    }
}

impl Categories<'_> {
    /// The counter of a category.
    pub fn counter(&self, category: Category<'_>) -> usize {
        let hash = category.hash();
        match self.known.0.binary_search_by_key(&hash, |known| u32::from_le_bytes(*known)) {
            Ok(known) => known,
            Err(_) => {
                let others = self.counts.len().saturating_sub(self.known.len()).max(1);
                self.known.len() + hash as usize % others
            }
        }
    }
}

impl Category<'_> {
    /// The category's hash: FNV-1a over the text's UTF-8 or the integer's eight little-endian bytes, followed by the
    /// finalizer of MurmurHash3, which spreads short inputs over all bits.
    pub fn hash(&self) -> u32 {
        let fnv = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0x811C_9DC5u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
        };
        let mut hash = match self {
            Category::Integer(value) => fnv(&value.to_le_bytes()),
            Category::Text(text) => fnv(text.as_bytes()),
        };
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85EB_CA6B);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xC2B2_AE35);
        hash ^ (hash >> 16)
    }
}

impl Bins<'_> {
    /// Number of counters.
    pub fn counters(&self) -> usize {
        self.counts().len()
    }

    /// What the calibration data counted to.
    pub fn counts(&self) -> Counts<'_> {
        match self {
            Bins::Numeric(numeric) => numeric.counts,
            Bins::Classes(counts) => *counts,
            Bins::Categories(categories) => categories.counts,
        }
    }
}

impl<'a> Baseline<'a> {
    /// Validates the section; `artifact` must be complete but for its baseline.
    pub(crate) fn parse(artifact: Artifact<'a>, section: &'a [u8]) -> Result<Self, FormatError> {
        let head = Head::read(section).ok_or(FormatError::Baseline { feature: 0 })?;
        let baseline = Baseline { artifact, head, records: section.get(HEAD..).unwrap_or(&[]) };
        if usize::from(head.features) > limits::MAX_FEATURES
            || usize::from(head.counters) > limits::MAX_COUNTERS
        {
            return Err(FormatError::Limit);
        }
        let (mut records, mut counters, mut observed) = (Records { rest: baseline.records }, 0usize, 0u64);
        for feature in 0..head.features {
            let malformed = FormatError::Baseline { feature };
            let record = records.next().ok_or(malformed)?;
            let decoded = artifact.decode_feature(record).ok_or(malformed)?;
            counters = counters.saturating_add(decoded.bins.counters());
            observed = observed.saturating_add(decoded.observed());
        }
        if counters != usize::from(head.counters) || !records.rest.is_empty() {
            return Err(FormatError::Baseline { feature: head.features });
        }
        if observed > limits::MAX_OBSERVED { Err(FormatError::Limit) } else { Ok(baseline) }
    }

    /// A section that was validated before; `None` when there is none.
    pub(crate) fn read(artifact: Artifact<'a>, section: &'a [u8]) -> Option<Self> {
        Some(Baseline { artifact, head: Head::read(section)?, records: section.get(HEAD..)? })
    }

    /// The number of features.
    pub fn feature_count(&self) -> usize {
        self.head.features.into()
    }

    /// The number of counters of all features together.
    pub fn counter_count(&self) -> usize {
        self.head.counters.into()
    }

    /// How many runs of the model were counted.
    pub fn samples(&self) -> u32 {
        self.head.samples
    }

    /// The features in order.
    pub fn features(&self) -> impl Iterator<Item = Feature<'a>> + Clone + use<'a> {
        let artifact = self.artifact;
        // Every record was decoded once in `parse`, so none is left out.
        Records { rest: self.records }.filter_map(move |record| artifact.decode_feature(record))
    }
}

impl Feature<'_> {
    /// How many elements have to be looked at in one run.
    pub fn observed(&self) -> u64 {
        let elements = self.tensor.map_or(1, |tensor| tensor.elements() as u64);
        match self.part {
            Part::Elements { stride } => elements.div_ceil(u64::from(stride.max(1))),
            Part::Element(_) => 1,
            Part::Max | Part::ArgMax => elements,
        }
    }
}

impl Head {
    fn read(section: &[u8]) -> Option<Self> {
        let &[a, b, c, d, e, f, g, h] = section.first_chunk::<HEAD>()?;
        Some(Head {
            features: u16::from_le_bytes([a, b]),
            counters: u16::from_le_bytes([c, d]),
            samples: u32::from_le_bytes([e, f, g, h]),
        })
    }
}

/// The records of the section: a `u32` length and as many bytes.
#[derive(Clone)]
struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.rest.split_first_chunk::<4>()?;
        let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.rest = rest;
        Some(record)
    }
}

/// A record as postcard codes it. Later versions may append fields, which this one skips.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record<'a> {
    #[serde(borrow)]
    pub(crate) name: &'a str,
    pub(crate) source: Source,
    pub(crate) part: Part,
    #[serde(borrow)]
    pub(crate) bins: RawBins<'a>,
    pub(crate) missing: u32,
}

/// Numbers are arrays of little-endian 32-bit words, to be used in place.
#[derive(Serialize, Deserialize)]
pub(crate) enum RawBins<'a> {
    Numeric {
        edges: &'a [u8],
        counts: &'a [u8],
        min: f32,
        max: f32,
        unit: f32,
        zero: f32,
        sum: i64,
        squares: u128,
    },
    Classes {
        counts: &'a [u8],
    },
    Categories {
        known: &'a [u8],
        counts: &'a [u8],
    },
}

impl<'a> Artifact<'a> {
    /// Decodes one record; `None` when it is malformed or does not fit the model.
    fn decode_feature(&self, record: &'a [u8]) -> Option<Feature<'a>> {
        let (record, _): (Record<'a>, _) = postcard::take_from_bytes(record).ok()?;
        let tensor = match record.source {
            Source::Input(index) => Some(self.inputs().nth(index.into())?),
            Source::Output(index) => Some(self.outputs().nth(index.into())?),
            Source::Application => None,
        };
        let bins = record.bins.check()?;
        let elements = tensor.map_or(1, |tensor| tensor.elements());
        let part_ok = match record.part {
            Part::Elements { stride } => stride > 0 && elements > 0,
            Part::Element(element) => (element as usize) < elements,
            Part::Max | Part::ArgMax => tensor.is_some() && elements > 0,
        };
        let bins_ok = match (record.part, &bins) {
            (Part::ArgMax, Bins::Classes(counts)) => counts.len() == elements,
            (Part::Elements { .. } | Part::Element(_) | Part::Max, Bins::Numeric(_)) => true,
            (Part::Elements { .. } | Part::Element(_), Bins::Categories(_)) => {
                tensor.is_none_or(|tensor| is_integer(tensor.dtype))
            }
            _ => false,
        };
        // Half-precision tensors are constants only, and no input or output.
        let readable = tensor.is_none_or(|tensor| tensor.dtype != DType::F16);
        let name_ok = record.name.len() <= limits::MAX_FEATURE_NAME;
        (part_ok && bins_ok && readable && name_ok).then_some(Feature {
            name: record.name,
            source: record.source,
            part: record.part,
            tensor,
            bins,
            missing: record.missing,
        })
    }
}

/// Whether elements of this type are integers or truth values.
fn is_integer(dtype: DType) -> bool {
    !matches!(dtype, DType::F32 | DType::F16)
}

impl<'a> RawBins<'a> {
    fn check(self) -> Option<Bins<'a>> {
        let words = |bytes: &'a [u8]| {
            let (words, rest) = bytes.as_chunks::<4>();
            rest.is_empty().then_some(words)
        };
        match self {
            RawBins::Numeric { edges, counts, min, max, unit, zero, sum, squares } => {
                let (edges, counts) = (Edges(words(edges)?), Counts(words(counts)?));
                let ascending = edges.iter().zip(edges.iter().skip(1)).all(|(a, b)| a < b);
                let ok = ascending
                    && edges.iter().all(f32::is_finite)
                    && (1..=limits::MAX_EDGES).contains(&edges.len())
                    && counts.len() == edges.len() + 1
                    && unit.is_normal()
                    && unit > 0.0
                    && zero.is_finite()
                    && !(min.is_nan() || max.is_nan());
                ok.then_some(Bins::Numeric(Numeric { edges, counts, min, max, unit, zero, sum, squares }))
            }
            RawBins::Classes { counts } => {
                let counts = Counts(words(counts)?);
                (!counts.is_empty()).then_some(Bins::Classes(counts))
            }
            RawBins::Categories { known, counts } => {
                let (known, counts) = (Counts(words(known)?), Counts(words(counts)?));
                let ascending = known.iter().zip(known.iter().skip(1)).all(|(a, b)| a < b);
                let ok = ascending && counts.len() > known.len();
                ok.then_some(Bins::Categories(Categories { known, counts }))
            }
        }
    }
}

/// The number of monitored features of an artifact, for use in constants: `0` when it has no baseline.
pub const fn monitored_features(bytes: &[u8]) -> usize {
    crate::reader::u16_in_section(bytes, crate::layout::section::BASELINE, 0)
}

/// The number of counters that an artifact's monitored features need together, for use in constants: `0` when it has
/// no baseline.
pub const fn monitored_counters(bytes: &[u8]) -> usize {
    crate::reader::u16_in_section(bytes, crate::layout::section::BASELINE, 2)
}

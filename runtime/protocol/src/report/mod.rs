//! Statistics of one window.

mod bins;
mod encode;
mod merge;
mod section;

pub use bins::Bins;
pub use encode::ReportEncoder;
pub use section::{
    CountedSection, Counts, GaugeReading, LatencySection, MarkReading, NumericSection, Section,
};

use crate::DecodeError;
use crate::limits::{MAX_SECTIONS, MAX_SLOT, MAX_UP_MESSAGE};
use crate::wire::Reader;

/// What a report says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportHeader<'a> {
    /// The model slot, at most [`MAX_SLOT`] bytes.
    pub slot: &'a str,
    /// SHA-256 that stands in the header of the artifact that was counted.
    pub model: [u8; 32],
    /// When the window was opened, in seconds since 1970 UTC by the device's clock; 0 when it did not know. When
    /// the window was closed is told by the envelope's age.
    pub start_unix_s: u64,
    /// How long the window was open, in milliseconds; of merged windows the sum.
    pub duration_ms: u32,
    /// How many closed windows were merged into this one.
    pub windows: u32,
    /// A window that does not fit into one report is split; this is the report's number among them, from 0.
    /// Durations and numbers of windows only add over reports with part 0; sections add over all.
    pub part: u16,
}

/// `up/report`: the statistics of one window, or of a part of it; decoded in place.
///
/// ```
/// use dunlin_protocol::{DecodeError, Report, Section};
///
/// fn inferences(body: &[u8]) -> Result<u64, DecodeError> {
///     let report = Report::decode(body)?;
///     let counts = report.sections().map(|section| match section {
///         Section::Counts(counts) => counts.inferences,
///         _ => 0,
///     });
///     Ok(counts.sum())
/// }
/// # assert!(inferences(&[]).is_err());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    header: ReportHeader<'a>,
    sections: Reader<'a>,
}

impl<'a> Report<'a> {
    /// Reads a body and checks all of it, so that its sections can be walked without errors.
    ///
    /// # Errors
    /// When the bytes are no report: the whole report is refused then, as a part of it would give wrong sums.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        if body.len() > MAX_UP_MESSAGE {
            return Err(DecodeError::Limit { field: "report" });
        }
        let mut sections = Reader::new(body);
        let mut header = sections.nested("report.header")?;
        let header = ReportHeader {
            slot: header.text("report.slot", MAX_SLOT)?,
            model: header.array("report.model")?,
            start_unix_s: header.take("report.start_unix_s")?,
            duration_ms: header.take("report.duration_ms")?,
            windows: header.take("report.windows")?,
            part: header.take("report.part")?,
        };
        let mut unread = sections;
        for count in 0.. {
            if unread.is_empty() {
                break;
            }
            if count == MAX_SECTIONS {
                return Err(DecodeError::Limit { field: "report.sections" });
            }
            section(&mut unread)?;
        }
        Ok(Self { header, sections })
    }

    /// What the report says about itself.
    pub fn header(&self) -> &ReportHeader<'a> {
        &self.header
    }

    /// The sections in the order in which they were written; unknown ones too.
    pub fn sections(&self) -> impl Iterator<Item = Section<'a>> + use<'a> {
        let mut unread = self.sections;
        // Everything was checked by `decode`.
        core::iter::from_fn(move || section(&mut unread).ok())
    }
}

fn section<'a>(reader: &mut Reader<'a>) -> Result<Section<'a>, DecodeError> {
    let tag = reader.take("report.section")?;
    Section::read(tag, reader.nested("report.section")?)
}

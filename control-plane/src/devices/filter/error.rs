//! What is wrong with a filter, and where.

use std::fmt;
use std::ops::Range;

/// What is wrong with a filter. Its display shows the line with a mark under the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// What is wrong.
    pub message: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
    /// The place, in characters from the filter's beginning.
    pub place: Range<usize>,
    line: String,
    /// The place in `line`.
    column: Range<usize>,
}

impl FilterError {
    /// An error at the bytes `at` of `text`.
    pub(super) fn new(text: &str, at: Range<usize>, message: impl Into<String>) -> Self {
        let chars = |end: usize| text.char_indices().take_while(|(index, _)| *index < end).count();
        let place = chars(at.start)..chars(at.end).max(chars(at.start));
        let before = text.get(..at.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |index| index + 1);
        let line = text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default().to_owned();
        let start = place.start - chars(line_start);
        let end = (start + place.len()).min(line.chars().count());
        FilterError { message: message.into(), suggestion: None, place, line, column: start..end.max(start) }
    }

    pub(super) fn suggest(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Characters shown before and after the place.
        const AROUND: usize = 40;
        let skip = self.column.start.saturating_sub(AROUND);
        let length = self.column.len().clamp(1, AROUND);
        let shown: String =
            self.line.chars().skip(skip).take(self.column.start - skip + length + AROUND).collect();
        writeln!(f, "{} (column {})", self.message, self.column.start + 1)?;
        writeln!(f, "  {shown}")?;
        write!(f, "  {}{}", " ".repeat(self.column.start - skip), "^".repeat(length))?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, " {suggestion}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FilterError {}

/// The candidate that is nearest to `word`, if it is near enough to be a slip of the finger.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in characters of words of at most 64.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(x != *y)).min(*above + 1).min(left + 1);
            diagonal = *above;
            *above = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

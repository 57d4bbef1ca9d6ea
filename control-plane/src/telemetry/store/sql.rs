//! Statements over many rows.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use sqlx::AssertSqlSafe;

/// Numbers of rows that a statement may have. Few, because every number makes another statement that the connection
/// keeps prepared; large ones, because every statement costs a round trip.
const SIZES: [usize; 4] = [128, 32, 8, 1];

/// A statement with a list of rows in it: `head ($1, $2), ($3, $4), … tail`.
pub(super) struct Rows {
    head: &'static str,
    columns: usize,
    tail: &'static str,
    texts: [OnceLock<Arc<str>>; SIZES.len()],
}

impl Rows {
    /// A statement with `columns` values per row.
    pub(super) const fn new(head: &'static str, columns: usize, tail: &'static str) -> Self {
        Rows { head, columns, tail, texts: [const { OnceLock::new() }; SIZES.len()] }
    }

    /// Splits rows among as few statements as possible: which rows, and the statement's text.
    pub(super) fn split(
        &self,
        rows: usize,
    ) -> impl Iterator<Item = (Range<usize>, AssertSqlSafe<Arc<str>>)> + '_ {
        let mut begin = 0;
        std::iter::from_fn(move || {
            let left = rows - begin;
            let place = SIZES.iter().position(|size| *size <= left)?;
            let range = begin..begin + SIZES.get(place)?;
            begin = range.end;
            let text = self.texts.get(place)?.get_or_init(|| self.text(range.len()));
            // The text is made of constants and placeholders only.
            Some((range, AssertSqlSafe(Arc::clone(text))))
        })
    }

    fn text(&self, rows: usize) -> Arc<str> {
        let mut text = String::from(self.head);
        for row in 0..rows {
            text.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..self.columns {
                if column > 0 {
                    text.push_str(", ");
                }
                text.push('$');
                text.push_str(&(row * self.columns + column + 1).to_string());
            }
            text.push(')');
        }
        text.push_str(self.tail);
        text.into()
    }
}

/// Unsigned numbers of 64 bits (boots) as the database's signed ones, bit by bit.
pub(super) fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

/// The way back.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

/// Counts never come near the database's limit; one that does stays there.
pub(super) fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_split_among_few_texts() {
        static ROWS: Rows = Rows::new("insert into t values ", 2, " returning a");
        let split = |n| ROWS.split(n).map(|(range, _)| range).collect::<Vec<_>>();
        assert!(split(0).is_empty());
        assert_eq!(split(2), [0..1, 1..2]);
        assert_eq!(
            split(300),
            [0..128, 128..256, 256..288, 288..296, 296..297, 297..298, 298..299, 299..300]
        );
        assert_eq!(&*ROWS.text(2), "insert into t values ($1, $2), ($3, $4) returning a");
    }
}

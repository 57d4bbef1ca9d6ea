//! A filter as a tree, and back to text.

use std::fmt;

use crate::db::Dialect;

/// A condition on a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of them; at least two.
    And(Vec<Filter>),
    /// Any of them; at least two.
    Or(Vec<Filter>),
    /// The opposite.
    Not(Box<Filter>),
    /// A comparison with one value.
    Compare(Field, CompareOp, Literal),
    /// Equal to any of the values; at least one.
    In(Field, Vec<Literal>),
    /// A text that fits a pattern: `*` stands for any characters, `?` for one, `\` takes the next one as it is.
    Matches(Field, String),
    /// The device has a value for the field.
    Has(Field),
    /// The field is yes.
    Flag(Field),
}

/// What a filter can ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The device's id.
    Id,
    /// The name of its fleet.
    Fleet,
    /// Its hardware class.
    Hardware,
    /// The agent's version. Equality compares the text, order the version.
    AgentVersion,
    /// When the last message came from it.
    LastSeen,
    /// When it was enrolled or created.
    Created,
    /// Whether it is blocked.
    Blocked,
    /// Whether it is connected.
    Connected,
    /// A tag that operators set.
    Tag(String),
    /// An attribute that the device reported.
    Attribute(String),
    /// The model that runs in a slot: version number, or digest in hex.
    Running(String),
    /// The model that should run in a slot: version number, or digest in hex.
    Desired(String),
    /// What a slot reports: `empty`, `running`, `trial` or `failed`.
    Status(String),
}

/// What a field's values are, hence what it can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Texts: `==`, `!=`, `in`, `matches`.
    Text,
    /// Texts, and as versions also `<`, `<=`, `>`, `>=`.
    Version,
    /// Texts that may be numbers: all operators, order with numbers only.
    Value,
    /// Model versions: all operators with numbers; equality and `matches` with digests.
    Model,
    /// Points in time: order only.
    Time,
    /// Yes or no.
    Flag,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

/// A value in a filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A text.
    Text(String),
    /// A finite number.
    Number(f64),
    /// Yes or no.
    Bool(bool),
    /// A point in time.
    Time(Instant),
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instant {
    /// Microseconds since 1970 UTC.
    At(i64),
    /// So many seconds from the moment of asking; negative: before it.
    FromNow(i64),
}

impl Instant {
    /// Microseconds since 1970 UTC, when it is `now_us`.
    pub fn at_us(self, now_us: i64) -> i64 {
        match self {
            Instant::At(us) => us,
            Instant::FromNow(seconds) => now_us.saturating_add(seconds.saturating_mul(1_000_000)),
        }
    }
}

/// Fields without a key.
pub(super) const PLAIN_FIELDS: [(&str, Field); 8] = [
    ("id", Field::Id),
    ("fleet", Field::Fleet),
    ("hardware", Field::Hardware),
    ("agent_version", Field::AgentVersion),
    ("last_seen", Field::LastSeen),
    ("created", Field::Created),
    ("blocked", Field::Blocked),
    ("connected", Field::Connected),
];

/// Makes a field of its key.
type WithKey = fn(String) -> Field;

/// Fields with a key: `tags.region`.
pub(super) const KEYED_FIELDS: [(&str, WithKey); 5] = [
    ("tags", Field::Tag),
    ("attributes", Field::Attribute),
    ("running", Field::Running),
    ("desired", Field::Desired),
    ("status", Field::Status),
];

impl Field {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Field::Id | Field::Fleet | Field::Hardware | Field::Status(_) => Kind::Text,
            Field::AgentVersion => Kind::Version,
            Field::Tag(_) | Field::Attribute(_) => Kind::Value,
            Field::Running(_) | Field::Desired(_) => Kind::Model,
            Field::LastSeen | Field::Created => Kind::Time,
            Field::Blocked | Field::Connected => Kind::Flag,
        }
    }
}

impl CompareOp {
    pub(super) const ALL: [(&'static str, CompareOp); 6] = [
        ("==", CompareOp::Eq),
        ("!=", CompareOp::Ne),
        ("<=", CompareOp::Le),
        (">=", CompareOp::Ge),
        ("<", CompareOp::Lt),
        (">", CompareOp::Gt),
    ];

    /// The operator as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            CompareOp::Eq => "==",
            CompareOp::Ne => "!=",
            CompareOp::Lt => "<",
            CompareOp::Le => "<=",
            CompareOp::Gt => ">",
            CompareOp::Ge => ">=",
        }
    }

    pub(super) fn is_order(self) -> bool {
        !matches!(self, CompareOp::Eq | CompareOp::Ne)
    }

    pub(super) fn holds<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        match self {
            CompareOp::Eq => left == right,
            CompareOp::Ne => left != right,
            CompareOp::Lt => left < right,
            CompareOp::Le => left <= right,
            CompareOp::Gt => left > right,
            CompareOp::Ge => left >= right,
        }
    }
}

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glob {
    /// Any characters.
    Any,
    /// One character.
    One,
    /// This character.
    Just(char),
}

/// The parts of a pattern; a `\` at its end stands for itself.
pub(super) fn glob_parts(pattern: &str) -> Vec<Glob> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Glob::Any,
            '?' => Glob::One,
            '\\' => Glob::Just(chars.next().unwrap_or('\\')),
            c => Glob::Just(c),
        });
    }
    // Many stars in a row mean the same as one, and cost a matcher dearly.
    parts.dedup_by(|next, previous| *next == Glob::Any && *previous == Glob::Any);
    parts
}

/// The pattern as the database writes it: `GLOB` on SQLite (its `LIKE` does not tell upper from lower case), `LIKE`
/// with `\` as escape on PostgreSQL.
pub(super) fn sql_pattern(pattern: &str, dialect: Dialect) -> String {
    let mut text = String::with_capacity(pattern.len() + 8);
    for part in glob_parts(pattern) {
        match (part, dialect) {
            (Glob::Any, Dialect::Sqlite) => text.push('*'),
            (Glob::Any, Dialect::Postgres) => text.push('%'),
            (Glob::One, Dialect::Sqlite) => text.push('?'),
            (Glob::One, Dialect::Postgres) => text.push('_'),
            (Glob::Just(c @ ('*' | '?' | '[')), Dialect::Sqlite) => text.extend(['[', c, ']']),
            (Glob::Just(c @ ('%' | '_' | '\\')), Dialect::Postgres) => text.extend(['\\', c]),
            (Glob::Just(c), _) => text.push(c),
        }
    }
    text
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (group, key) = match self {
            Field::Tag(key) => ("tags", key),
            Field::Attribute(key) => ("attributes", key),
            Field::Running(key) => ("running", key),
            Field::Desired(key) => ("desired", key),
            Field::Status(key) => ("status", key),
            plain => {
                let name = PLAIN_FIELDS.iter().find(|(_, field)| field == plain).map_or("", |(name, _)| name);
                return f.write_str(name);
            }
        };
        write!(f, "{group}.")?;
        if super::lexer::is_plain_key(key) { f.write_str(key) } else { quoted(f, key) }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Text(text) => quoted(f, text),
            Literal::Number(number) => write!(f, "{number}"),
            Literal::Bool(value) => write!(f, "{value}"),
            Literal::Time(Instant::At(us)) => write!(f, "\"{}\"", crate::time::format_us(*us)),
            Literal::Time(Instant::FromNow(0)) => f.write_str("now"),
            Literal::Time(Instant::FromNow(seconds)) => {
                let sign = if *seconds < 0 { '-' } else { '+' };
                let seconds = seconds.unsigned_abs();
                let (unit, size) = super::lexer::UNITS
                    .into_iter()
                    .rev()
                    .find(|(_, size)| seconds % size == 0)
                    .unwrap_or(super::lexer::UNITS[0]);
                write!(f, "now {sign} {}{unit}", seconds / size)
            }
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |f: &mut fmt::Formatter<'_>, parts: &[Filter], word: &str| {
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    write!(f, " {word} ")?;
                }
                match part {
                    Filter::And(_) | Filter::Or(_) => write!(f, "({part})")?,
                    _ => write!(f, "{part}")?,
                }
            }
            Ok(())
        };
        match self {
            Filter::And(parts) => join(f, parts, "and"),
            Filter::Or(parts) => join(f, parts, "or"),
            Filter::Not(inner) => match &**inner {
                Filter::Has(_) | Filter::Flag(_) | Filter::Not(_) => write!(f, "not {inner}"),
                _ => write!(f, "not ({inner})"),
            },
            Filter::Compare(field, op, value) => write!(f, "{field} {} {value}", op.as_str()),
            Filter::In(field, values) => {
                write!(f, "{field} in [")?;
                for (index, value) in values.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{value}")?;
                }
                f.write_str("]")
            }
            Filter::Matches(field, pattern) => {
                write!(f, "{field} matches ")?;
                quoted(f, pattern)
            }
            Filter::Has(field) => write!(f, "has({field})"),
            Filter::Flag(field) => write!(f, "{field}"),
        }
    }
}

/// Writes a text in quotes; the lexer reads it back.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}
